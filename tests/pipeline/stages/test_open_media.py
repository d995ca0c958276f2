"""Embedded media in any order, a batch at a time; scratch folders, gone whoever made them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import FORMATS
from pipeline.sources.records import Record
from pipeline.stages import open_media
from pipeline.stages.open_media import open_address, scratch
from shards.errors import MissingData, UserError

HOLD = """
import sys, time
from pipeline.stages.open_media import scratch
with scratch(sys.argv[1]) as made:
    print(made, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_worker_left_goes_and_what_is_held_stays(tmp_path: Path) -> None:
    held, killed = (
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    assert held.stdout and killed.stdout
    theirs, left = (Path(one.stdout.readline().strip()) for one in (held, killed) if one.stdout)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (left / "member").write_bytes(b"x")
    with scratch(str(tmp_path)) as made:
        assert left.exists() and theirs.exists()  # too new to judge
    for folder in (theirs, left):
        os.utime(folder, (0, 0))
    with scratch(str(tmp_path)) as made:
        assert theirs.exists() and made.exists() and not left.exists()
    assert not made.exists()
    held.kill()
    held.wait()
    for one in (held, killed):
        one.stdout.close()  # type: ignore[union-attr]


def opened(address: str) -> bytes:
    with open_address(address) as found:
        assert isinstance(found, Path)
        return found.read_bytes()


def pictures(path: Path, rows: int = 40) -> list[bytes]:
    """A file of one large row group, each row with two pictures in a list of structs."""
    made = [os.urandom(300 + 50 * number) for number in range(2 * rows)]
    talk = [{"role": "user", "content": "Same?"}, {"role": "assistant", "content": "No."}]
    table = [
        {
            "images": [{"bytes": data, "path": None} for data in made[2 * row : 2 * row + 2]],
            "messages": talk,
        }
        for row in range(rows)
    ]
    pq.write_table(pa.Table.from_pylist(table), path, row_group_size=rows)
    return made


@pytest.mark.parametrize("most", [1, 3_000, 1 << 28])
def test_embedded_media_are_read_a_batch_at_a_time_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    made = pictures(tmp_path / "a.parquet")
    sizes: list[int] = []
    monkeypatch.setattr(open_media, "BATCH_BYTES", most)
    whole = pq.ParquetFile.iter_batches

    def watched(file: pq.ParquetFile, **options: Any) -> Any:
        for batch in whole(file, **options):
            sizes.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    found = list(FORMATS["parquet_images"](tmp_path / "a.parquet"))
    addresses = [ref.address for item in found if isinstance(item, Record) for ref in item.media]
    assert len(addresses) == len(made)
    sizes.clear()
    open_media._column.cache_clear()
    assert [opened(address) for address in addresses] == made
    total = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).total_byte_size
    assert len(sizes) == (1 if most > total else 40 if most == 1 else len(sizes))
    assert max(sizes) <= max(3 * most, 9_000) or most > total
    backwards = [opened(address) for address in reversed(addresses[::7])]
    assert backwards == made[::7][::-1]


def test_a_row_group_is_never_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pictures(tmp_path / "a.parquet", rows=4)

    def too_large(*_: object, **__: object) -> None:
        raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", too_large)
    assert opened(f"parquet:{tmp_path}/a.parquet#000000002/1/images") == made[5]


def test_what_another_run_cannot_mend_is_not_told_to_be_run_again(tmp_path: Path) -> None:
    made = pictures(tmp_path / "a.parquet", rows=4)
    assert opened(f"parquet:{tmp_path}/a.parquet#000000003/0/images") == made[6]
    for spot in ("000000099/0/images", "000000001/9/images", "000000001/0/pictures"):
        with pytest.raises((MissingData, UserError)) as caught:
            opened(f"parquet:{tmp_path}/a.parquet#{spot}")
        assert "again" in str(caught.value) and "build again" not in str(caught.value)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-100])
    with pytest.raises(MissingData, match="fetch the file again"):
        opened(f"parquet:{tmp_path}/b.parquet#000000001/0/images")
