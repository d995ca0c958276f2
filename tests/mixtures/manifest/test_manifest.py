"""Manifests: same content same id, verified on load, books that balance, diff and explain."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixtures.__main__ import main
from mixtures.diff import diff, explain
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest, write_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.packs import Packs
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from shards.errors import DamagedData, MissingData, UserError
from shards.ids import canonical_json
from shards.index import NAMED, table_of
from shards.pool import Pool
from shards.receipts import Work
from tests.support.made_pool import MadePool, MadeSample, many, name_of, write_recipe

GOLDEN_ID = "b79f9796c3f08110a32b21231dc1398d6b19b50aed528cc1b440d20e584ab71d"
RATIOS = {"a": "weight: 3", "b": "weight: 1"}


def made() -> MadePool:
    return MadePool(sources={"a": many("a", 60), "b": many("video-b", 30)})


def planned(folder: Path, pool: MadePool, *more: str, ratios: dict[str, str] = RATIOS) -> Manifest:
    folder.mkdir(exist_ok=True)
    recipe = load_recipe(write_recipe(folder, ratios, *more))
    build_manifest(recipe, pool.make(folder / "pool")).write(str(folder))
    return load_manifest(folder / "manifest.json")


def test_the_id_does_not_depend_on_how_the_pool_is_cut_or_where_it_lies(tmp_path: Path) -> None:
    ids = set()
    for parts in (1, 3):
        folder = tmp_path / f"place{parts}"
        folder.mkdir()
        recipe = load_recipe(write_recipe(folder, RATIOS))
        plan = build_manifest(recipe, made().make(folder / "pool", parts))
        ids.add(plan.manifest.manifest_id)
    assert len(ids) == 1


def test_a_written_manifest_loads_as_it_was_built(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, RATIOS))
    plan = build_manifest(recipe, made().make(tmp_path / "pool"))
    plan.write(str(tmp_path / "out"))
    loaded = load_manifest(str(tmp_path / "out" / "manifest.json"))
    assert loaded.contents == plan.manifest.contents
    assert loaded.names == ["a", "b"] and loaded.layout == recipe.layout
    assert loaded.view == recipe.frames and loaded.pack == recipe.pack
    assert loaded.codec.count("seven") > 0


def test_a_manifest_holds_no_float_and_no_path(tmp_path: Path) -> None:
    text = canonical_json(planned(tmp_path, made()).contents.to_json()).decode()
    assert str(tmp_path) not in text and "annotations" not in text


def test_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    manifest = planned(tmp_path, made())
    value = manifest.contents.to_json() | {"seed": 6}
    (tmp_path / "manifest.json").write_bytes(canonical_json(value))
    with pytest.raises(DamagedData, match="manifest_id"):
        load_manifest(tmp_path / "manifest.json")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    manifest = planned(tmp_path, made())
    name = f"plan/{manifest.contents.sources[1].kept.table}.npy"
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DamagedData, match=name):
        load_manifest(tmp_path / "manifest.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"manifest_version": 1}', "\xff"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_manifest(tmp_path / "manifest.json")


def test_a_manifest_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    value = planned(tmp_path, made()).contents.to_json()
    value["pack"]["algo"] = "bfd-window/9"
    (tmp_path / "manifest.json").write_bytes(canonical_json(value))
    with pytest.raises(UserError, match=r"pack\.algo is 'bfd-window/9'"):
        load_manifest(tmp_path / "manifest.json")


def test_the_default_length_stops_before_a_source_repeats(tmp_path: Path) -> None:
    manifest = planned(tmp_path, made())
    drawn = Draws(manifest).samples(0, manifest.length + 1)
    assert {one.epoch for one in drawn[:-1]} == {0} and drawn[-1].epoch == 1
    seen = [one.key for one in drawn[:-1]]
    assert len(set(seen)) == len(seen)


def test_repeat_one_visits_every_sample_once(tmp_path: Path) -> None:
    ratios = {"a": "repeat: 1", "b": "repeat: 1"}
    manifest = planned(tmp_path, made(), ratios=ratios)
    draws, order = Draws(manifest), Packs(manifest)
    assert manifest.length == 90
    assert len({(one.source, one.key) for one in draws.samples(0, 90)}) == 90
    with pytest.raises(IndexError):
        draws.sample(90)
    packs = [order.pack(i) for i in range(manifest.contents.packs)]
    assert sorted(one.position for pack in packs for one in pack) == list(range(90))
    with pytest.raises(IndexError):
        order.pack(len(packs))


def test_a_budget_is_exact(tmp_path: Path) -> None:
    ratios = {"a": "budget: 7", "b": "budget: 45"}
    drawn = Draws(planned(tmp_path, made(), ratios=ratios)).samples(0, 52)
    assert sum(one.source == "a" for one in drawn) == 7
    assert sum(one.epoch == 1 for one in drawn) == 15


def test_max_repeats_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_repeats: 'b' has 30 samples and would be drawn 45"):
        ratios = {"a": "budget: 7", "b": "budget: 45, max_repeats: 1"}
        planned(tmp_path, made(), ratios=ratios)


def test_the_books_balance_and_count_repeats(tmp_path: Path) -> None:
    pool = made()
    pool.broken = {"a-3": "MEDIA_TRUNCATED", "a-4": "MEDIA_EMPTY"}
    recipe = load_recipe(
        write_recipe(tmp_path, {"a": "weight: 1", "b": "weight: 1"}, "length: 100")
    )
    plan = build_manifest(recipe, pool.make(tmp_path / "pool"))
    a, b = plan.books
    assert (a.records, a.records_refused, a.samples, a.samples_refused) == (61, 1, 60, 2)
    assert (a.chosen, a.drawn, a.repeats) == (58, 50, 0)
    assert (b.chosen, b.drawn, b.repeats) == (30, 30, 20)
    assert len(plan.refusals) == 2 + 2


@pytest.mark.parametrize("count", ["records", "records_refused", "samples", "samples_refused"])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_pool_whose_counts_were_tampered_with_is_not_published(
    tmp_path: Path, count: str, change: int
) -> None:
    pool = made().make(tmp_path / "pool")
    one = next(r for r in pool.receipts("admit") if r.parameters["source"] == "a")
    pool.store.remove(f"receipts/{one.work_id}.json")
    counts = one.counts | {count: one.counts[count] + change}
    work = Work(one.stage, one.version, one.parameters, one.inputs)
    pool.ledger.put(work, one.outputs, counts, one.tools)
    pool = Pool(str(tmp_path / "pool"))
    with pytest.raises(UserError, match="books of 'a' do not balance"):
        build_manifest(load_recipe(write_recipe(tmp_path, RATIOS)), pool)


@pytest.mark.parametrize(
    ("ratios", "more", "message"),
    [
        ({"c": "weight: 1"}, (), "holds no source 'c'"),
        ({"a": "weight: 1, revision: beef"}, (), "no source 'a' at revision beef"),
        ({"a": "weight: 1"}, ("profile: {fps: 4}",), "profile: the pool"),
        ({"a": "weight: 1"}, ("pack_tokens: 16",), "nothing of the source 'a' is left"),
    ],
)
def test_what_the_pool_lacks_is_named(
    tmp_path: Path, ratios: dict[str, str], more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        planned(tmp_path, made(), *more, ratios=ratios)


def test_two_revisions_of_a_source_ask_for_one(tmp_path: Path) -> None:
    pool = made().make(tmp_path / "pool")
    receipt = next(r for r in pool.receipts("admit") if r.parameters["source"] == "a")
    newer = receipt.parameters | {"revision": "f" * 32}
    pool.commit(Work("admit", "1", newer, ["a2"]), {}, counts=receipt.counts)
    recipe = load_recipe(write_recipe(tmp_path, RATIOS))
    with pytest.raises(UserError, match="2 revisions of 'a'"):
        build_manifest(recipe, pool)
    build_manifest(recipe, pool, {"a": name_of("a"), "b": name_of("b")})


def test_one_of_several_admissions_of_a_revision_is_read(tmp_path: Path) -> None:
    pool = made().make(tmp_path / "pool")
    recipe = load_recipe(write_recipe(tmp_path, RATIOS))
    before = build_manifest(recipe, pool)
    first = next(r for r in pool.receipts("admit") if r.parameters["source"] == "a")
    moved = Work("admit", "1", first.parameters | {"places": "elsewhere"}, first.inputs)
    named = table_of(NAMED, [{"what": "near", "count": 3, "example": "x"}])
    noted = pool.commit(Work("other", "1", {}, []), {"named": named}).outputs
    again = pool.ledger.put(moved, first.outputs | noted, first.counts, first.tools)
    for pin, names in ((again.work_id, {"near": 3}), (first.work_id, {})):
        plan = build_manifest(recipe, pool, {"a": pin})
        assert plan.manifest.manifest_id == before.manifest.manifest_id
        assert (plan.books[0].records, plan.books[0].names) == (before.books[0].records, names)
    assert build_manifest(recipe, pool).manifest.manifest_id == before.manifest.manifest_id


def test_weights_change_the_mixture_and_leave_each_source_in_its_order(tmp_path: Path) -> None:
    a = planned(tmp_path / "one", made())
    b = planned(tmp_path / "two", made(), ratios={"a": "weight: 1", "b": "weight: 1"})
    found = diff(a, b)
    assert found["sources"]["a"] == {
        "asked": [{"weight": "3/1"}, {"weight": "1/1"}],
        "share": ["3/4", "31/61"],
        "token_share": found["sources"]["a"]["token_share"],
        "kept": [60, 60],
        "conversations": [60, 60],
        "in_both": 60,
        "gone": [],
        "in_order": 60,
        "drawn": [60, 31],
        "reused": 31,
    }
    assert found["rules"].keys() == {"length", "schedule.stages"} and not found["identical"]
    assert 0 < found["same_positions"] < 5
    for name in ("a", "b"):
        ours, theirs = (
            [d.key for d in Draws(m).samples(0, 40) if d.source == name] for m in (a, b)
        )
        shorter = min(len(ours), len(theirs))
        assert ours[:shorter] == theirs[:shorter]


def test_one_sample_less_moves_no_other(tmp_path: Path) -> None:
    other = made()
    other.broken = {"a-7": "MEDIA_EMPTY"}
    found = diff(planned(tmp_path / "one", made()), planned(tmp_path / "two", other))
    orders = {name: one["in_order"] for name, one in found["sources"].items()}
    assert orders == {"a": 59, "b": 30}
    assert found["sources"]["a"]["in_both"] == 59


def test_another_seed_keeps_little_of_the_order(tmp_path: Path) -> None:
    a, b = (planned(tmp_path / name, made(), ratios=RATIOS) for name in ("one", "two"))
    other = replace(b, seed=6)
    found = diff(a, other)["sources"]["a"]
    assert found["in_both"] == 60 and 5 < found["in_order"] < 30


def test_a_manifest_does_not_differ_from_itself(tmp_path: Path) -> None:
    manifest = planned(tmp_path, made())
    found = diff(manifest, manifest)
    assert found["identical"] and found["rules"] == {}
    assert found["same_positions"] == manifest.length


def test_explain_names_what_a_rank_sees(tmp_path: Path) -> None:
    manifest = planned(tmp_path, made())
    packs = [explain(manifest, 1, rank, 2, 4) for rank in range(2)]
    positions = sorted(one["position"] for mine in packs for pack in mine for one in pack)
    order = Packs(manifest)
    assert positions == sorted(d.position for i in range(4, 8) for d in order.pack(i))
    assert not any(one["views"] for mine in packs for pack in mine for one in pack)
    with pytest.raises(UserError, match="rank 2 of 2"):
        explain(manifest, 0, 2, 2, 4)


@pytest.mark.parametrize(
    ("step", "rank", "world_size", "global_batch"),
    [(-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 10**9, 1), (0, 0, 1, 10**9), (0, 0, 0, 1), (0, 0, 1, 0)],
)
def test_silly_numbers_are_refused(
    tmp_path: Path, step: int, rank: int, world_size: int, global_batch: int
) -> None:
    with pytest.raises(UserError, match="give --step >= 0"):
        explain(planned(tmp_path, made()), step, rank, world_size, global_batch)


def test_a_step_beyond_the_end_of_a_finite_order_is_named(tmp_path: Path) -> None:
    manifest = planned(tmp_path, made(), ratios={"a": "repeat: 1", "b": "repeat: 1"})
    with pytest.raises(UserError, match="step 99999999999999999999: the order ends before it"):
        explain(manifest, 99_999_999_999_999_999_999, 0, 2, 4)


def test_a_step_beyond_the_length_says_how_long_counting_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(tmp_path, made())
    place = "--rank 0 --world-size 1 --global-batch 4 --json".split()

    def said(step: int) -> tuple[str, str]:
        command = ["mixtures", "explain", str(tmp_path / "manifest.json"), "--step", str(step)]
        monkeypatch.setattr(sys, "argv", [*command, *place])
        main()
        return capsys.readouterr()

    assert said(0)[1] == ""
    shown, told = said(5000)
    assert len(json.loads(shown)) == 4
    assert re.search(r"step 5000 is beyond the length: the packs of about \d+ windows", told)
    with pytest.raises(UserError, match="more than 1000000; ask for an earlier step"):
        said(10**20)


def test_explain_says_how_the_pictures_of_a_pool_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = MadePool(sources={"a": [MadeSample("which", ["video-x", "i"])], "b": many("b", 3)})
    manifest = planned(tmp_path, pool, "frames: {area: 147456}", "pack_tokens: 4096")
    packs = explain(manifest, 0, 0, 1, 4, pool.make(tmp_path / "again"))
    views = {one["record"]: one["views"] for pack in packs for one in pack}
    video, image = views["which"]
    assert image["told"] == "64x64 as 64x64 on a grid of 64x64"
    assert (video["stored"], video["picture"]) == ([64, 64], [288, 288])  # the default `min_area`
    assert (video["grid"], video["stretched"], video["empty"]) == ([320, 320], 0, 190)
    place = "--step 0 --rank 0 --world-size 1 --global-batch 4".split()
    command = ["mixtures", "explain", str(tmp_path / "manifest.json"), *place]
    monkeypatch.setattr(sys, "argv", [*command, "--pool", str(tmp_path / "again")])
    main()
    assert "clips: 64x64 as 64x64 on a grid of 64x64" in capsys.readouterr().out


def test_no_vision_costs_no_patch_and_no_visual_token(tmp_path: Path) -> None:
    seen = planned(tmp_path / "both", made())
    blind = planned(tmp_path / "none", made(), "layout: {slow_frames: 2, pathways: none}")
    for table in blind.tables:
        assert not table["patches"].any() and not table["frames"].any()
    for i in range(2):
        assert (seen.tables[i]["tokens"] > blind.tables[i]["tokens"]).all()
    assert [diff(seen, blind)["sources"][name]["in_order"] for name in "ab"] == [60, 30]


def test_lengths_in_the_plan_are_those_of_the_rendered_sample(tmp_path: Path) -> None:
    pool = MadePool(sources={"a": [MadeSample("which", ["video-x", "i"])], "b": many("b", 3)})
    manifest = planned(tmp_path, pool)
    (row,) = manifest.tables[0]
    # 4 frames at 1 fps of 4x4 patches: slow 2 x (2 x (2 + 1) + 1), fast 4 x (1 + 1), 5 around;
    # the image 4 x (4 + 1) and 2 around.
    visual = 14 + 8 + 5 + 20 + 2
    text = sum(manifest.codec.count_turns(pool.sources["a"][0].turns))
    assert row.tolist()[1:] == (text + visual, 5 * 16, 2, 5, 3500, 90)


def test_the_command_line_plans_explains_and_diffs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made().make(tmp_path / "pool")
    recipe = write_recipe(tmp_path, RATIOS)
    out = tmp_path / "out" / "manifest.json"

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["mixtures", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    said = run("plan", recipe, "--pool", tmp_path / "pool", "--out", out)
    assert load_manifest(out).manifest_id in said
    assert (out.parent / "refused.parquet").exists()
    assert json.loads(run("diff", out, out, "--json"))["identical"] is True
    assert "same manifest" in run("diff", out, out)
    ranks = ("--step", 0, "--rank", 0, "--world-size", 1, "--global-batch", 2)
    assert len(json.loads(run("explain", out, *ranks, "--json"))) == 2


def test_manifests_of_other_names_share_a_folder_and_folders_stand_for_theirs(
    tmp_path: Path,
) -> None:
    first = planned(tmp_path / "a", made())
    other = planned(tmp_path / "b", made(), ratios=dict.fromkeys(RATIOS, "weight: 1"))
    write_manifest(first, str(tmp_path / "out"))
    write_manifest(other, str(tmp_path / "out"), "other.json")
    assert load_manifest(tmp_path / "out").manifest_id == first.manifest_id
    assert load_manifest(tmp_path / "out/other.json").manifest_id == other.manifest_id
    with pytest.raises(MissingData, match=r"a/b/manifest\.json: not there"):
        load_manifest(tmp_path / "out/a/b")


def test_a_mistake_on_the_command_line_is_one_line_and_status_2(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, RATIOS)
    command = [sys.executable, "-m", "mixtures", "plan", str(recipe), "--pool", str(tmp_path)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_tables_are_sorted_and_small(tmp_path: Path) -> None:
    for table in planned(tmp_path, made()).tables:
        keys = [key.tobytes() for key in table["key"]]
        assert keys == sorted(keys) and table.dtype.itemsize == 38
        assert isinstance(table, np.ndarray)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("fault", [flipped, truncated, emptied, Path.unlink])
@pytest.mark.parametrize("ratios", [RATIOS, {"a": "repeat: 1", "b": "repeat: 2"}])
def test_every_fault_of_every_file_of_a_manifest_is_refused(
    tmp_path: Path, fault: Callable[[Path], None], ratios: dict[str, str]
) -> None:
    manifest = planned(tmp_path, made(), ratios=ratios)
    files = [tmp_path / "manifest.json", *sorted((tmp_path / "plan").iterdir())]
    assert len(files) == 6
    for path in files:
        whole = path.read_bytes()
        fault(path)
        with pytest.raises(UserError) as refused:
            load_manifest(tmp_path / "manifest.json")
        assert path.name in str(refused.value) and "\n" not in str(refused.value)
        path.write_bytes(whole)
    assert load_manifest(tmp_path / "manifest.json").contents == manifest.contents


@pytest.mark.parametrize("version", [2, 4])
def test_an_older_and_a_newer_manifest_are_refused_before_anything_else(
    tmp_path: Path, version: int
) -> None:
    planned(tmp_path, made())
    value = {"manifest_version": version, "manifest_id": "x", "what": ["it", "may", "hold"]}
    (tmp_path / "manifest.json").write_bytes(canonical_json(value))
    with pytest.raises(UserError, match=f"manifest_version is {version}, this version knows 3"):
        load_manifest(tmp_path / "manifest.json")


def test_a_manifest_beside_the_tables_of_another_is_refused(tmp_path: Path) -> None:
    planned(tmp_path / "one", made())
    planned(tmp_path / "two", MadePool(sources={"a": many("a", 9), "b": many("b", 9)}))
    data = (tmp_path / "one" / "manifest.json").read_bytes()
    (tmp_path / "two" / "manifest.json").write_bytes(data)
    with pytest.raises(UserError, match="not there; restore it, or plan again"):
        load_manifest(tmp_path / "two" / "manifest.json")


@pytest.mark.parametrize("part", ["schedule", "permutation", "batch", "pack", "layout", "text"])
def test_a_manifest_names_every_algorithm_and_another_one_is_refused(
    tmp_path: Path, part: str
) -> None:
    value = json.loads(json.dumps(planned(tmp_path, made()).contents.to_json()))
    name = "version" if part in ("layout", "text") else "algo"
    value[part][name] = "other/1"
    (tmp_path / "manifest.json").write_bytes(canonical_json(value))
    with pytest.raises(UserError, match=f"{part}.{name} is 'other/1', this version knows"):
        load_manifest(tmp_path / "manifest.json")


def test_totals_say_what_is_drawn_of_each_source(tmp_path: Path) -> None:
    manifest = planned(tmp_path, made(), ratios={"a": "repeat: 1", "b": "repeat: 2"})
    a, b = (source.drawn for source in manifest.contents.sources)
    assert (a.samples, b.samples) == (60, 60)
    assert b.tokens == 2 * int(manifest.tables[1]["tokens"].sum())
    assert b.millis == 60 * 3500 and manifest.contents.totals.seconds == 210
    assert manifest.contents.totals.nbytes == 60 * 10 + 60 * 80
    assert a.frames == 60 and b.frames == 60 * 4


def test_this_manifest_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    """The whole id, not only the order: equal under every Python version and on every machine."""
    ratios = {"a": "weight: 3, max_repeats: 9", "b": "weight: 1, filters: {num_turns: {min: 2}}"}
    stages = "stages: [{start: 100, weights: {b: 3}}]"
    manifest = planned(tmp_path, made(), stages, "length: 200", ratios=ratios)
    assert manifest.manifest_id == GOLDEN_ID
