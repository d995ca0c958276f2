"""Rows are bounded before they are held: long ones, deep ones, and one value repeated for ever."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import json_rows, parquet_rows
from pipeline.untrusted import Problem
from shards.errors import UserError

GOOD = {"id": "a", "text": 'a "quoted" \\ [word]'}
LONG = 24 << 20


def codes(path: Path) -> list[str]:
    return [row.code if isinstance(row, Problem) else "kept" for row in json_rows.rows(path)]


class Held:
    """How much text a list's reader holds at most."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.most, real = 0, json_rows._Window.more

        def more(window: json_rows._Window) -> None:
            real(window)
            self.most = max(self.most, len(window.text))

        patch.setattr(json_rows._Window, "more", more)


@pytest.mark.parametrize(
    ("name", "element", "code"),
    [
        ("long string", '"' + "x" * LONG + '"', "ROW_TOO_LONG"),
        ("long object", '{"a": "' + 'x\\"]}' * (LONG // 6) + '"}', "ROW_TOO_LONG"),
        ("many elements", "[" + "1," * (LONG // 2) + "1]", "ROW_TOO_LONG"),
        ("long number", "1" * LONG, "ROW_TOO_LONG"),
        ("deep", "[" * 200_000 + "]" * 200_000, "ROW_TOO_DEEP"),
        ("deep and long", '{"a":' * (1 << 20) + "1" + "}" * (1 << 20), "ROW_TOO_"),
        ("quotes in the depth", '[["a]\\\\", "\\"" ,' * 100_000 + "1" + "]]" * 100_000, "ROW_TOO_"),
    ],
)
def test_an_element_beyond_the_bounds_is_passed_over_and_its_neighbours_are_read(
    tmp_path: Path, name: str, element: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(f"[{json.dumps(GOOD)}, {element}, {json.dumps(GOOD)}]")
    held = Held(monkeypatch)
    began = time.process_time()
    first, between, last = codes(path)
    assert (first, last) == ("kept", "kept") and between.startswith(code)
    assert held.most <= json_rows.WINDOW + json_rows.MAX_ROW_BYTES + 100
    assert time.process_time() - began < 60


@pytest.mark.parametrize("text", ['[{"a": ', '[{"a": "', "[[", '[{"a" 1}, {}]', '["\\'])
def test_a_list_that_breaks_off_is_still_an_error_of_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    for many in ("", " " * (20 << 20)):
        path.write_text(text + many)
        with pytest.raises(UserError, match=r"not JSON|not a JSON list"):
            codes(path)


def test_one_value_that_a_dictionary_repeats_is_never_held_so_often(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"id": [str(i) for i in range(512)], "text": ["x" * 4_100_000] * 512})
    pq.write_table(table, path, dictionary_pagesize_limit=8 << 20, compression="zstd")
    del table
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before, default = pool.max_memory(), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        found = parquet_rows.rows(path, [("id", "text")], 512)
        with pytest.raises(UserError, match="unpack to more than"):
            for _, _, row in found:
                assert isinstance(row, Problem) and row.code == "ROW_TOO_LONG"
    finally:
        pa.set_memory_pool(default)
    assert before is not None and (pool.max_memory() or 0) < 300 << 20


def test_a_row_group_of_media_is_read_page_by_page(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    images = [{"bytes": bytes([n]) * (1 << 20), "path": None} for n in range(96)]
    table = pa.table({"image": images, "texts": [[]] * len(images)})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_batch_size=4)
    del table, images
    pool, default = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        besides = parquet_rows.rows(path, [("texts",)], 8, lambda field: field.name == "image")
        assert [row["image"]["bytes"][0] for _, _, row in besides] == list(range(96))
    finally:
        pa.set_memory_pool(default)
    assert (pool.max_memory() or 0) < 48 << 20
