"""The media profile: what was kept by another door is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import UserError
from shards.ids import canonical_json
from shards.pool import Pool
from shards.profile import DOOR_VERSION, PROFILE, Profile


def refused(folder: Path, said: str) -> None:
    """Fails unless the pool is refused, with and without a recipe's profile beside it."""
    for asked in (None, Profile()):
        with pytest.raises(UserError, match=said):
            Pool(str(folder), asked)


def test_a_pool_of_another_door_is_refused_with_what_to_do(tmp_path: Path) -> None:
    assert Pool(str(tmp_path), Profile()).profile == Profile()
    older = Profile().to_json() | {"door": "media-door/2"}
    (tmp_path / "profile.json").write_bytes(PROFILE.seal(older))
    said = f"kept by media-door/2, this version keeps them by {DOOR_VERSION}; build"
    refused(tmp_path, f"profile.json.*{said}")


def test_a_pool_of_before_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_bytes(canonical_json(Profile().to_json()))
    refused(tmp_path, r"profile\.json: written by another version .*; build another pool")


def test_a_flipped_bit_of_the_profile_is_no_other_profile(tmp_path: Path) -> None:
    Pool(str(tmp_path), Profile())
    path = tmp_path / "profile.json"
    path.write_bytes(path.read_bytes().replace(b'"fps":2', b'"fps":3'))
    refused(tmp_path, r"profile\.json: not as it was written; remove it and build again")
