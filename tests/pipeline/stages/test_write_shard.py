"""Shards of a manifest: the same bytes whoever writes them, in whatever order, however often."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from pipeline.jobs import write_shards
from pipeline.jobs.write_shards import plan_shards, publish
from pipeline.stages import write_shard as write_shard_stage
from pipeline.stages.write_shard import ShardUnit, write_shard
from shards.errors import DamagedData
from shards.ids import sha256_hex
from shards.index import REFUSED, SAMPLES, read_table, table_of, write_table
from shards.pool import Pool
from shards.reader import open_data
from shards.receipts import Work
from shards.store import Store
from shards.verify import RECEIPT, damage, read_receipt
from tests.support.tiny_pool import tiny_manifest


def packed(path: Path, out: str, units: list[ShardUnit]) -> dict[str, bytes]:
    publish(Store(out), load_manifest(path), dict(map(write_shard, units)))
    store = Store(out)
    names = [name for name in store.list("") if name != "index"]
    return {name: store.get(name) for name in names}


def test_the_order_of_writing_and_what_was_there_before_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_shards, "SHARD_BYTES", 100_000)
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, pool = load_manifest(path), Pool(str(tmp_path / "tiny/pool"))
    outs = [str(tmp_path / "one"), f"memory://{tmp_path.name}/two"]
    units = [plan_shards(str(path), manifest, pool, out)[0] for out in outs]
    assert len(units[0]) > 3
    one = packed(path, outs[0], units[0])
    assert one == packed(path, outs[1], units[1][::-1])
    assert not list(damage(outs[0])) and not list(damage(outs[1]))
    Store(outs[0]).remove(units[0][1].name)
    Store(outs[0]).remove("receipt.json")
    assert packed(path, outs[0], units[0][2:] + units[0][:2]) == one


def admitted_again(pool: Pool, licence: str) -> None:
    """The pool's first source at another revision: the same samples under another licence."""
    receipt = min(pool.receipts("admit"), key=lambda one: str(one.parameters["source"]))
    rows = pool.table([receipt], "index/samples", SAMPLES).to_pylist()
    changed = [row | {"revision": "f" * 32, "licence": licence, "record": "new"} for row in rows]
    parameters = receipt.parameters | {"revision": "f" * 32, "licence": licence}
    work = Work("admit", receipt.version, parameters, ["another"])
    tables = {"index/samples": table_of(SAMPLES, changed), "refused": REFUSED.empty_table()}
    pool.commit(work, tables, counts=receipt.counts)


@pytest.mark.parametrize("licence", ["another", "0"])
def test_a_later_revision_of_a_source_changes_no_byte_of_an_older_manifest(
    tmp_path: Path, licence: str
) -> None:
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, pool = load_manifest(path), Pool(str(tmp_path / "tiny/pool"))
    outs = [str(tmp_path / "before"), str(tmp_path / "after")]
    before = packed(path, outs[0], plan_shards(str(path), manifest, pool, outs[0])[0])
    assert manifest.revisions == {
        str(one.parameters["source"]): one.parameters["revision"] for one in pool.receipts("admit")
    }
    admitted_again(pool, licence)
    write_shard_stage._reader.cache_clear()
    pool = Pool(str(tmp_path / "tiny/pool"))
    assert before == packed(path, outs[1], plan_shards(str(path), manifest, pool, outs[1])[0])
    source = manifest.names[0]
    key = manifest.tables[0]["key"][0].tobytes().hex()
    for folder in (None, tmp_path / "node"):
        stored = open_data(str(tmp_path / "tiny/pool"), folder, manifest).read(source, key)
        assert stored.sample.origin.licence != licence


@pytest.mark.parametrize("what", ["tar", "part, digest", "part, crc32", "part, bit", "cut"])
def test_what_is_there_but_not_whole_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(write_shards, "SHARD_BYTES", 100_000)
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, pool = load_manifest(path), Pool(str(tmp_path / "tiny/pool"))
    out = str(tmp_path / "out")
    units = plan_shards(str(path), manifest, pool, out)[0]
    whole, store = packed(path, out, units), Store(out)
    name = units[1].name
    part = write_shard_stage.part_of(name)
    data, index = store.get(name), store.get(part)
    table = read_table(index, part)
    wrong = {
        "tar": (name, data[:700] + bytes([data[700] ^ 1]) + data[701:]),
        "cut": (name, data[:-512]),
        "part, bit": (part, index[:60] + bytes([index[60] ^ 1]) + index[61:]),
        "part, digest": (part, write_table(table.replace_schema_metadata({}))),
        "part, crc32": (part, write_table(other_checksums(table))),
    }
    store.put(*wrong[what])
    assert packed(path, out, units) == whole
    assert store.get(part) == index
    assert not list(damage(out))


def test_a_flipped_bit_that_no_checksum_of_a_page_covers_makes_a_shard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_shards, "SHARD_BYTES", 100_000)
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, pool = load_manifest(path), Pool(str(tmp_path / "tiny/pool"))
    out = str(tmp_path / "out")
    unit, *_ = plan_shards(str(path), manifest, pool, out)[0]
    write_shard(unit)
    store, part = Store(out), write_shard_stage.part_of(unit.name)
    drawn = Draws(manifest).samples(unit.start, unit.stop)
    index = store.get(part)
    table = read_table(index, part)
    assert write_shard_stage._written(store, unit.name, drawn)
    footer = len(index) - 8 - int.from_bytes(index[-8:-4], "little")
    silent = 0
    for bit in range(8 * footer, 8 * len(index), 37):
        flipped = bytearray(index)
        flipped[bit // 8] ^= 1 << bit % 8
        store.put(part, bytes(flipped))
        assert write_shard_stage._written(store, unit.name, drawn) == "", bit
        with suppress(DamagedData):
            silent += read_table(bytes(flipped), part).equals(table, check_metadata=True)
    assert silent > 20  # of such a flip, reading alone tells nothing
    write_shard(unit)
    assert store.get(part) == index


def other_checksums(part: pa.Table) -> pa.Table:
    values = [value ^ 1 for value in part["crc32"].to_pylist()]
    at = part.schema.get_field_index("crc32")
    return part.set_column(at, part.schema.field(at), pa.array(values, pa.uint32()))


def test_verify_checks_every_checksum_though_the_shards_are_those_of_the_receipt(
    tmp_path: Path,
) -> None:
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, pool = load_manifest(path), Pool(str(tmp_path / "tiny/pool"))
    out = str(tmp_path / "out")
    packed(path, out, plan_shards(str(path), manifest, pool, out)[0])
    store = Store(out)
    index = write_table(other_checksums(read_table(store.get("index.parquet"), "index")))
    receipt = read_receipt(store) | {"index": sha256_hex(index)}
    store.put("index.parquet", index)
    store.put("receipt.json", RECEIPT.seal(receipt))
    assert len([line for line in damage(out) if "not those that were written" in line]) > 3


def test_what_is_whole_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, pool = load_manifest(path), Pool(str(tmp_path / "tiny/pool"))
    out = str(tmp_path / "out")
    units = plan_shards(str(path), manifest, pool, out)[0]
    whole = packed(path, out, units)
    monkeypatch.setattr(write_shard_stage, "shard_of", None)
    assert packed(path, out, units) == whole
