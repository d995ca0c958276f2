"""What a build prints for people."""

from __future__ import annotations

import pytest

from pipeline.__main__ import show
from pipeline.build import Built
from pipeline.jobs.write_shards import Sizes
from shards.outcome import Books


def test_no_count_of_the_books_is_cut_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    books = Books(
        source="digit_scenes_of_many_kinds",
        records=12_345_671,
        records_refused=12_345_672,
        samples=12_345_673,
        samples_refused=12_345_674,
        not_chosen=12_345_675,
        chosen=12_345_676,
        joined=12_345_677,
        drawn=12_345_678,
        repeats=12_345_679,
    )
    sizes = Sizes(pool_bytes=1, shard_bytes=1, clips_packed=1, clips_stored=1)
    show(Built(manifest_id="a" * 64, books=(books,), matches=(), sizes=sizes), "report.html")
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "digit" in line)
    assert row.split() == [books.source, *map(str, range(12_345_671, 12_345_680))]
