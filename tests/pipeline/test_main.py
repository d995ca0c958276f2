"""What a build prints for people."""

from __future__ import annotations

import pytest

from pipeline.__main__ import show
from pipeline.build import Built
from pipeline.jobs.write_shards import Sizes
from shards.index import REFUSED, table_of
from shards.outcome import Books


def test_no_count_of_the_books_is_cut_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # processes of the suite may have one
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
    codes = ["MEDIA_EMPTY"] * 2 + ["ROW_NOT_JSON"] * 5 + ["LEAK_TEXT", "MEDIA_SHORT"]
    rows = [
        dict.fromkeys(REFUSED.names, "") | {"source": books.source, "code": code, "record": f"r{n}"}
        for n, code in enumerate(codes)
    ]
    refusals = table_of(REFUSED, rows)
    built = Built(manifest_id="a" * 64, books=(books,), refusals=refusals, matches=(), sizes=sizes)
    show(built, "report.html")
    lines = capsys.readouterr().out.splitlines()
    row, *told = (line for line in lines if line.strip().startswith("digit"))
    assert row.split() == [books.source, *map(str, range(12_345_671, 12_345_680))]
    assert lines[-3:] == told
    assert [line.split()[1:3] for line in told[:2]] == [["5", "ROW_NOT_JSON"], ["2", "MEDIA_EMPTY"]]
    assert told[0].endswith("e.g. r2)") and len(told) == 3
