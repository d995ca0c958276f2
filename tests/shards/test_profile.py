"""The media profile: what was kept by another door is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shards.errors import UserError
from shards.pool import Pool
from shards.profile import DOOR_VERSION, Profile


def test_a_pool_of_another_door_is_refused_with_what_to_do(tmp_path: Path) -> None:
    assert Pool(str(tmp_path), Profile()).profile == Profile()
    older = Profile().to_json() | {"door": "media-door/2"}
    (tmp_path / "profile.json").write_text(json.dumps(older))
    said = f"profile.json.*kept by media-door/2, this version keeps them by {DOOR_VERSION}; build"
    for asked in (None, Profile()):
        with pytest.raises(UserError, match=said):
            Pool(str(tmp_path), asked)
