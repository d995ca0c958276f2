"""Shards of a manifest: the same bytes whoever writes them, in whatever order, however often."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, count
from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.diff import explain
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from pipeline.jobs import write_shards
from pipeline.jobs.write_shards import plan_shards, publish
from pipeline.stages import write_shard as write_shard_stage
from pipeline.stages.write_shard import ShardUnit, write_shard
from pipeline.upkeep.kept_samples import kept_samples
from shards.errors import DamagedData, UserError
from shards.ids import sha256_hex
from shards.index import REFUSED, SAMPLES, read_table, table_of, write_table
from shards.pool import Pool
from shards.reader import PoolReader, open_data
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


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("changed", [("d", "GPL-3.0"), ("other", "mit"), ("other", "GPL-3.0")])
def test_the_same_revision_under_another_licence_is_another_admission(
    tmp_path: Path, changed: tuple[str, str], later: bool
) -> None:
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, url = load_manifest(path), str(tmp_path / "tiny/pool")
    outs = [str(tmp_path / "before"), str(tmp_path / "after")]
    before = packed(path, outs[0], plan_shards(str(path), manifest, Pool(url), outs[0])[0])
    admitted_as(Pool(url), *changed, later=later)
    write_shard_stage._reader.cache_clear()
    # the first manifest is packed, planned and read as before
    assert before == packed(path, outs[1], plan_shards(str(path), manifest, Pool(url), outs[1])[0])
    assert told(manifest, Pool(url)) == {("d", "mit")}
    recipe, other = tmp_path / "tiny/recipe.yaml", tmp_path / "tiny/other.yaml"
    other.write_text(asked_as(recipe.read_text(), *changed))
    recipe.write_text(f"allow_licences: [mit]\n{recipe.read_text()}")
    plan = build_manifest(load_recipe(recipe), Pool(url))
    assert not plan.refusals and told(plan.manifest, Pool(url)) == {("d", "mit")}
    # and the other recipe sees the other admission
    plan = build_manifest(load_recipe(other), Pool(url))
    assert plan.manifest.revisions == manifest.revisions
    assert told(plan.manifest, Pool(url)) == {("d", "mit"), changed}
    other.write_text(asked_as(recipe.read_text(), "d", "never"))
    with pytest.raises(UserError, match=", and not as d under never; run"):
        build_manifest(load_recipe(other), Pool(url))


def asked_as(recipe: str, dataset: str, licence: str) -> str:
    """The recipe with its first source as another dataset under another licence."""
    mine = f"dataset: {dataset}, format: llava_json, annotations: a, licence: {licence},"
    return recipe.replace("dataset: d, format: llava_json, annotations: a, licence: mit,", mine, 1)


def admitted_as(pool: Pool, dataset: str, licence: str, *, later: bool) -> None:
    """The pool's source `pictures` once more at the same revision, before or behind the first."""
    first = next(one for one in pool.receipts("admit") if one.parameters["source"] == "pictures")
    said = {"dataset": dataset, "licence": licence}
    rows = pool.table([first], "index/samples", SAMPLES).to_pylist()
    samples = table_of(SAMPLES, [row | said for row in rows])
    made = pool.commit(Work("made", "1", said, []), {"index/samples": samples}).outputs
    works = (
        Work("admit", first.version, first.parameters | said | {"places": str(n)}, first.inputs)
        for n in count()
    )
    work = next(one for one in works if (one.work_id > first.work_id) == later)
    pool.ledger.put(work, first.outputs | made, first.counts, first.tools)
    counted = pool.receipts("lengths")
    (own,) = (one for one in counted if list(one.inputs) == first.outputs["index/samples"])
    lengths = Work("lengths", own.version, own.parameters, made["index/samples"])
    pool.ledger.put(lengths, own.outputs, own.counts, own.tools)


def told(manifest: Manifest, pool: Pool) -> set[tuple[str, str]]:
    """Datasets and licences of all samples: every reader of a pool says the same."""
    drawn = sorted({(one.source, one.key) for one in Draws(manifest).samples(0, manifest.length)})
    reader = PoolReader(pool, made=manifest)
    read = [reader.read(*name).sample.origin for name in drawn]
    exported = [kept.row for kept in kept_samples(pool, manifest)]
    found = {(one.dataset, one.licence) for one in read}
    assert found == {(row["dataset"], row["licence"]) for row in exported}
    explained = chain(*explain(manifest, 0, 0, 1, 4, pool))
    assert found >= {(one["origin"].split("@")[0], one["licence"]) for one in explained}
    return found


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
