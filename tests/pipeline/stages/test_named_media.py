"""Admission: a revision is what the records name, not what else lies beside it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.fetch import local_files
from pipeline.sources import spilled
from pipeline.sources.media_lookup import Found, MediaTable, Members
from pipeline.sources.records import MediaRef
from pipeline.stages import pending
from pipeline.stages.admit_records import SourceUnit, admit
from pipeline.stages.named_media import answers, hashes
from pipeline.stages.open_media import open_address
from shards.ids import sha256_hex
from shards.index import MEDIA, REFUSED, SAMPLES, WANTED, table_of
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import Receipt
from tests.hostile.images import photograph, saved
from tests.pipeline.archives.test_members import tar_of


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceUnit:
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "media").mkdir()
    rows = []
    for number in range(3):
        if number < 2:
            (tmp_path / f"media/{number}.jpg").write_bytes(saved(photograph(32 + number), "JPEG"))
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
        rows.append({"id": f"r{number}", "image": f"{number}.jpg", "conversations": turns})
    (tmp_path / "a.json").write_text(json.dumps(rows))
    Pool(str(tmp_path / "pool"), Profile())
    return SourceUnit(
        pool=str(tmp_path / "pool"),
        name="a",
        dataset="d",
        format="llava_json",
        annotations=(str(tmp_path / "a.json"),),
        media=str(tmp_path / "media"),
        licence="MIT",
    )


def changed(unit: SourceUnit, name: str, data: bytes) -> Receipt:
    (Path(unit.media) / name).write_bytes(data)
    return admit(unit)


def test_a_file_that_no_record_names_changes_nothing(unit: SourceUnit) -> None:
    before = admit(unit)
    assert before.counts["samples_refused"] == 1
    assert changed(unit, "unrelated.jpg", b"whatever").work_id == before.work_id
    assert len(Pool(unit.pool).receipts("admit")) == 1


def test_of_pieces_only_the_files_count_that_records_name(unit: SourceUnit) -> None:
    picture = saved(photograph(38), "JPEG")
    (Path(unit.media) / "patch_0").write_bytes(picture)
    spot = {"patch": "patch_0", "start_num": 0, "size": len(picture)}
    talk = json.loads(Path(unit.annotations[0]).read_text())[0]["conversations"]
    rows = [{"id": "p", "image": spot, "conversations": talk},
            {"id": "q", "image": "0.jpg", "conversations": talk}]  # fmt: skip
    Path(unit.annotations[0]).write_text(json.dumps(rows))
    oryx = replace(unit, format="oryx_patches")
    before = admit(oryx)
    assert before.counts["samples"] == 2 and before.counts["samples_refused"] == 0
    assert changed(oryx, "unrelated.txt", b"x").work_id == before.work_id
    # bytes behind the pieces are of the same file: its revision is another
    found = [before, *(changed(oryx, name, picture + b"0") for name in ("patch_0", "0.jpg"))]
    assert len({one.parameters["revision"] for one in found}) == 3


@pytest.mark.parametrize("name", ["0.jpg", "2.jpg"])
def test_a_file_that_a_record_names_is_another_revision(unit: SourceUnit, name: str) -> None:
    before = admit(unit).parameters["revision"]
    after = changed(unit, name, saved(photograph(99), "JPEG"))
    assert after.parameters["revision"] != before


def test_media_that_moved_keep_their_revision_and_get_addresses_that_open(
    unit: SourceUnit, tmp_path: Path
) -> None:
    before = admit(unit)
    moved = Path(unit.media).rename(tmp_path / "moved")
    after = admit(replace(unit, media=str(moved)))
    assert after.parameters["revision"] == before.parameters["revision"]
    assert after.outputs["index/samples"] == before.outputs["index/samples"]
    pool = Pool(unit.pool)
    assert len(opened(pool, after)) == 2
    assert admit(replace(unit, media=str(moved))).work_id == after.work_id
    assert pool.admitted(None) == [min(before, after, key=lambda one: one.work_id)]


def test_pictures_in_a_table_that_moved_open(unit: SourceUnit, tmp_path: Path) -> None:
    picture = saved(photograph(40), "JPEG")
    row = {"images": [{"bytes": picture, "path": None}], "texts": [{"user": "q", "assistant": "a"}]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    before = replace(
        unit, format="parquet_images", annotations=(str(tmp_path / "a.parquet"),), media=""
    )
    assert admit(before).counts["samples_refused"] == 0
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "a.parquet").rename(tmp_path / "elsewhere/a.parquet")
    after = admit(replace(before, annotations=(str(moved),)))
    assert opened(Pool(unit.pool), after) == [picture]


def test_a_film_and_a_folder_of_one_name_both_count() -> None:
    both = [MediaRef(kind="video", name="v", fps=fps) for fps in (None, 1)]
    film, folder = (Found(digit * 64, f"file:/{digit}") for digit in "12")
    rows = [{"name": r.name, "kind": r.kind, "fps": r.fps, "span": None, "url": ""} for r in both]
    listed = table_of(WANTED, rows)
    for changed in (film, folder):
        places = {("v", False): film, ("v", True): folder}
        first = hashes(answers(listed, MediaTable(members=Members(exact=places))), [], {})
        places[("v", changed is folder)] = Found("3" * 64, "file:/3")
        again = hashes(answers(listed, MediaTable(members=Members(exact=places))), [], {})
        assert first[0] != again[0]


def test_every_address_of_the_same_bytes_is_written_down(unit: SourceUnit) -> None:
    data = (Path(unit.media) / "0.jpg").read_bytes()
    after = changed(unit, "2.jpg", data)
    rows = Pool(unit.pool).table([after], "index/media", MEDIA).to_pylist()
    twins = [row["address"] for row in rows if row["media_digest"] == sha256_hex(data)]
    assert [address.rpartition("/")[2] for address in twins] == ["0.jpg", "2.jpg"]


def test_names_of_several_files_are_part_of_the_revision(unit: SourceUnit, tmp_path: Path) -> None:
    shutil.copyfile(unit.annotations[0], tmp_path / "b.json")
    before = admit(replace(unit, annotations=(*unit.annotations, str(tmp_path / "b.json"))))
    (tmp_path / "b.json").rename(tmp_path / "c.json")
    after = admit(replace(unit, annotations=(*unit.annotations, str(tmp_path / "c.json"))))
    assert after.parameters["revision"] != before.parameters["revision"]
    rows = Pool(unit.pool).table([after], "refused", REFUSED).to_pylist()
    assert {row["record"] for row in rows} >= {"c#1:r0"}


def test_pictures_in_a_webdataset_tar_whose_name_is_no_text_open(
    unit: SourceUnit, tmp_path: Path
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    picture = saved(photograph(41), "JPEG")
    (folder / "a.tar").write_bytes(tar_of({"1.jpg": picture, "1.txt": b"A cat."}))
    found = local_files.pin(f"{tmp_path}/caf*/a.tar", "annotations")
    admitted = admit(replace(unit, format="webdataset", annotations=tuple(found), media=""))
    assert opened(Pool(unit.pool), admitted) == [picture]


def opened(pool: Pool, admitted: Receipt) -> list[bytes]:
    """The bytes of every medium, as decoding opens them."""
    found = []
    for row in pending.wanted_media(pool, [admitted]):
        with open_address(row.address) as path:
            assert isinstance(path, Path)
            found.append(path.read_bytes())
    return found


def test_a_source_of_many_rows_lies_in_several_tables_in_the_same_order(
    unit: SourceUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = json.loads(Path(unit.annotations[0]).read_text())
    more = []
    for row, n in product(rows, range(20)):
        asked = {"from": "human", "value": f"<image>\n{n}?"}
        talk = [asked, row["conversations"][1]]
        more.append(row | {"id": f"{row['id']}-{n}", "conversations": talk})
    Path(unit.annotations[0]).write_text(json.dumps(more))
    whole = admit(unit)
    monkeypatch.setattr(spilled, "IN_MEMORY", 7)
    monkeypatch.setattr(spilled, "TABLE", 5)
    Pool(str(tmp_path / "other"), Profile())
    cut = admit(replace(unit, pool=str(tmp_path / "other")))
    assert cut.work_id == whole.work_id and cut.counts == whole.counts
    assert len(cut.outputs["index/samples"]) > 3 and len(cut.outputs["refused"]) > 1
    for folder, schema in (
        ("index/samples", SAMPLES),
        ("index/media", MEDIA),
        ("refused", REFUSED),
    ):
        tables = [Pool(one.pool).table([of], folder, schema) for one, of in
                  ((unit, whole), (replace(unit, pool=str(tmp_path / "other")), cut))]  # fmt: skip
        assert tables[0].to_pylist() == tables[1].to_pylist()
    assert len(whole.outputs["index/samples"]) == 1
