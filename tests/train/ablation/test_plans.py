"""Planning a grid: budgets along orders, variants that train on the same samples, questions that
select frames."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.packs import Packs
from pipeline.jobs import progress
from pipeline.jobs.job import Job
from pipeline.jobs.score_pool import score_pool
from shards.errors import UserError
from shards.pool import Pool
from shards.sample import turns_from_json
from tests.support.in_process import Here
from tests.support.tiny_pool import tiny_manifest
from tests.train.ablation.tiny_grid import world
from train.ablation.ablate import Standing, ablation_of, same_samples
from train.ablation.drawn_samples import MOST_LENGTHS, SupervisedTokens, rows_of, samples_digest
from train.ablation.inputs import read
from train.ablation.plans import CONFIG, PlannedRun, plan_runs
from train.ablation.tables import takes
from train.config import load_config

SCORER = "def asked(frames, turns): return [(7 * i) % 5 for i, _ in enumerate(frames)]\n"


def planned(path: Path, variants: str, more: str = "") -> list[PlannedRun]:
    text = path.read_text().partition("variants:")[0].replace("[3, 4]", "[3]")
    path.write_text(f"{text}{more}variants:\n{variants}")
    return plan_runs(*read(path, []), path.parent / "out", str(path))


def by_hand(pool: Pool, manifest: Manifest, packs: int) -> list[int]:
    """Supervised tokens of each pack, sample by sample."""
    counts = {}
    for source, table in zip(manifest.names, manifest.tables, strict=True):
        keys = [key.tobytes().hex() for key in table["key"]]
        members = {m for key in keys for m in manifest.members_of(source, key)}
        for key, turns in rows_of(pool, manifest, source, sorted(members), "turns"):
            counts[key] = manifest.codec.count_supervised(turns_from_json(json.loads(turns)))
    drawn = Packs(manifest).packs(range(packs))
    return [
        sum(counts[m] for one in pack for m in manifest.members_of(one.source, one.key))
        for pack in drawn
    ]


@pytest.mark.parametrize("join", ["", "max_turns: 4, max_tokens: 200"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_budget_is_counted_along_the_order_far_beyond_its_length(
    tmp_path: Path, join: str, batch: int
) -> None:
    manifest = load_manifest(tiny_manifest(tmp_path, join=join))
    pool, tokens = Pool(str(tmp_path / "pool")), SupervisedTokens(Pool(str(tmp_path / "pool")))
    packs = by_hand(pool, manifest, 900)
    by_step = np.add.reduceat(packs, range(0, 900, batch))
    for count in (1, 5, 200):
        wanted = int(by_step[:count].sum())
        drawn = tokens.steps_of(manifest, batch, wanted)
        assert (drawn.steps, drawn.supervised) == (count, wanted)
        assert tokens.in_steps(manifest, batch, count) == wanted
        assert tokens.steps_of(manifest, batch, wanted + 1).steps == count + 1
        assert drawn.samples == samples_digest(manifest, count * batch)
    assert samples_digest(manifest, 5) != samples_digest(manifest, 6)


def test_a_finite_order_ends_and_an_endless_one_is_not_gone_through_for_ever(
    tmp_path: Path,
) -> None:
    ends = tiny_manifest(tmp_path / "ends", ratio=("repeat: 2", "repeat: 2"))
    with pytest.raises(UserError, match=r"its order ends after .* supervised tokens, the budget"):
        SupervisedTokens(Pool(str(tmp_path / "ends/pool"))).steps_of(
            load_manifest(ends), 1, 100_000_000
        )
    endless = load_manifest(tiny_manifest(tmp_path / "on"))
    says = (
        rf"100,000,000 supervised tokens is [\d,]+ times what its `length` of 60 .*{MOST_LENGTHS}"
    )
    with pytest.raises(UserError, match=says):
        SupervisedTokens(Pool(str(tmp_path / "on/pool"))).steps_of(endless, 1, 100_000_000)


def test_a_variant_that_differs_in_what_is_not_drawn_says_so(tmp_path: Path) -> None:
    path = world(tmp_path)
    longer = "  - {name: longer, recipe: {length: 61}}\n"
    runs = planned(path, longer + "  - {name: other, times: {clips: 2}}\n")
    assert [run.same_as for run in runs] == ["", "base", ""]
    (said,) = same_samples(runs)["longer"]
    assert said == "seed 3: trained on the very samples of base; what differs is not drawn"
    told = ablation_of(path, *read(path, []), runs).variants[1]
    assert told.name == "longer" and told.differs[0] == said
    # twice as long as the length, the two orders part
    runs = planned(path, longer, "budget: 2000\n")
    assert [run.same_as for run in runs] == ["", ""]


def test_frozen_towers_share_a_feature_cache_whose_size_is_told(tmp_path: Path) -> None:
    path = world(tmp_path)
    frozen = "  - {name: frozen, config: {parts: {tower: {train: false}}}}\n"
    config = tmp_path / "train.yaml"
    # a rate would do nothing where the tower is frozen
    config.write_text(config.read_text().replace("tower: {lr: 5e-3}", "tower: {train: true}"))
    base, other = planned(path, frozen, f"feature_cache: {tmp_path}/features\n")
    configs = [load_config(run.folder / CONFIG) for run in (base, other)]
    assert [one.feature_cache for one in configs] == ["", f"{tmp_path}/features"]
    patches = sum(int(rows["patches"].sum()) for rows in load_manifest(other.folder).tables)
    assert (base.feature_bytes, other.feature_bytes) == (0, patches * 32 * 4)
    told = [str(part) for part in takes(Standing(runs=(base, other), there={}))]
    size = f"{patches * 128 / 1e9:.3g}"
    assert any(f"at most {size} GB where the 1 variants" in line for line in told)


def test_packs_and_starts_are_things_that_differ(tmp_path: Path) -> None:
    path = world(tmp_path)
    runs = planned(path, "  - {name: small, recipe: {pack_tokens: 200}}\n")
    assert [run.same_as for run in runs] == ["", ""]


def test_a_variant_may_select_frames_by_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world(tmp_path)
    (tmp_path / "plan_scorers.py").write_text(SCORER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plan_scorers", raising=False)
    by_question = "  - {name: asked, recipe: {frames: {selection: query}, frame_scores: asked}}\n"
    with pytest.raises(UserError, match=r"grid.yaml: asked: .*frame_scores: asked: .* no scores"):
        planned(path, by_question)
    with progress.steps() as bars:
        job = Job(pool=Pool(str(tmp_path / "pool")), workers=Here(), bars=bars)
        score_pool("plan_scorers:asked", "sample_frame", job)
    with pytest.raises(UserError, match="frames that fit the question, also when it is asked"):
        planned(path, by_question)
    (tmp_path / "siglip").mkdir()
    with pytest.raises(UserError, match=r"relevance: .*no model folder \(no config.json\)"):
        planned(path, by_question, f"relevance: {tmp_path}/siglip\n")
    (tmp_path / "siglip/config.json").write_text("{}")
    path.write_text(path.read_text().replace(f"relevance: {tmp_path}/siglip\n", ""))
    base, asked = planned(path, by_question, f"relevance: {tmp_path}/siglip\n")
    assert (base.relevance, asked.relevance) == ("", f"{tmp_path}/siglip")
    assert "relevance" not in base.key and len(asked.key["relevance"]) == 32
    assert asked.key["held_out"] != base.key["held_out"] and not asked.same_as
