"""While a run trains from a pool, `pool gc` knows its manifest."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from shards.errors import UserError
from shards.pool import clearing
from shards.store import Store
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, pool_of
from train import loop
from train.loop import run
from train.run_folder.pool_lease import pool_kept


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


def test_a_run_holds_a_lease_with_its_manifest(built: Path, tmp_path: Path) -> None:
    store = Store(pool_of(built))
    seen: list[dict[str, str]] = []

    def trained(training: loop.Training) -> str:
        with clearing(store) as readers:
            seen.append(readers)
        assert list(readers.values()) == [training.manifest.manifest_id]
        return "SIGTERM"

    with patch.object(loop, "train", trained):
        assert run(TINY, built, pool_of(built), tmp_path / "out") == 143
    assert len(seen) == 1 and not store.list("leases")
    # none begins while the pool is cleared
    with clearing(store), pytest.raises(UserError, match="is being cleared"):
        run(TINY, built, pool_of(built), tmp_path / "out")


def test_a_pool_that_may_only_be_read_serves_and_is_told(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = pool_of(built)
    refused = PermissionError(13, "Permission denied")
    with patch.object(Store, "put", side_effect=refused), pool_kept(pool, "id"):
        assert (
            "may only be read, so that `pool gc` does not see this run" in capsys.readouterr().err
        )
    full = OSError(28, "No space left on device")
    with (
        patch.object(Store, "put", side_effect=full),
        pytest.raises(UserError, match="No space left"),
        pool_kept(pool, "id"),
    ):
        pass


def test_shards_need_no_lease(tmp_path: Path) -> None:
    with pool_kept(str(tmp_path), "id"):
        assert not list(tmp_path.iterdir())
