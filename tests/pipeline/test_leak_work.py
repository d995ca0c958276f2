"""What a leak index keeps between renewals: of another version it is refused with what to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.jobs.leak_index import _work_pool
from shards.errors import UserError
from shards.profile import Profile


def test_work_of_before_says_that_it_can_be_deleted(tmp_path: Path) -> None:
    work = tmp_path / "leaks.work"
    work.mkdir()
    (work / "profile.json").write_text(json.dumps(asdict(Profile()) | {"door": "media-door/2"}))
    told = r"another version.*to delete \S+leaks\.work.* run this again"
    with pytest.raises(UserError, match=told):
        _work_pool(str(work))
    assert [path.name for path in work.iterdir()] == ["profile.json"]
