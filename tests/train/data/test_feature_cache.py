"""Features of a frozen tower on disk: the same bits for every run, and nearly those without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import CONFIG, PART, TINY, metrics, pool_of
from train.config import Config, Part, Parts, Stop, load_config
from train.data.feature_cache import FeatureCache
from train.data.tower_plan import Group
from train.json_files import HELD_OUT
from train.loop import run
from train.run_folder.record import read_record
from train.run_keys import HeldOutLoss

FROZEN = Parts(tower=Part(train=False), projector=PART, decoder=PART)


def losses(config: Config, manifest: Path, out: Path) -> list[float]:
    run(config, manifest, pool_of(manifest), out)
    return [row["loss"] for row in metrics(out)]


def test_runs_that_share_features_are_bit_equal_and_near_one_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tiny_manifest(tmp_path / "world")
    rule = HeldOutLoss(manifest=str(manifest), data=pool_of(manifest), every=3, samples=8)
    plain = replace(TINY, parts=FROZEN, stop=Stop(steps=6), held_out=rule)
    kept = replace(plain, feature_cache=str(tmp_path / "features"))
    without = losses(plain, manifest, tmp_path / "plain")
    assert "feature_cache" not in capsys.readouterr().out
    first = losses(kept, manifest, tmp_path / "first")
    # said first: fp32 of 32 values a patch
    patches = sum(int(table["patches"].sum()) for table in load_manifest(manifest).tables)
    said = f"at most {patches * 32 * 4 / 1e9:.3g} GB for the {patches:,} patches of its samples"
    assert said in capsys.readouterr().out.splitlines()[0]
    files = {path: path.read_bytes() for path in (tmp_path / "features").rglob("*")
             if path.is_file()}  # fmt: skip
    assert losses(kept, manifest, tmp_path / "again") == first
    held_out = [(tmp_path / name / HELD_OUT).read_bytes() for name in ("first", "again")]
    assert held_out[0] == held_out[1]
    assert max(abs(a - b) for a, b in zip(first, without, strict=True)) < 1e-5
    # what is there was read, and what is not as it was written is made again
    (one, data), *_ = files.items()
    one.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert losses(kept, manifest, tmp_path / "damaged") == first
    assert all(path.read_bytes() == data for path, data in files.items())
    # the record says so; both are the same run by what decides
    records = [read_record(tmp_path / name) for name in ("plain", "first")]
    assert records[1].made_with["feature_cache"] == "used"
    assert "feature_cache" not in records[0].made_with
    assert records[0].deciding == records[1].deciding


def test_a_frame_is_found_by_its_pixels_its_grid_the_tower_and_the_precision(
    tmp_path: Path,
) -> None:
    looked: list[Sequence[Group]] = []

    def look(patches: Tensor, groups: Sequence[Group]) -> Tensor:
        looked.append(groups)
        return patches[:, :4].float() + 1

    patches = torch.randint(0, 256, (14, 768), dtype=torch.uint8)
    groups = (Group(2, 2, 2), Group(1, 2, 3))
    cache = FeatureCache(tmp_path, "a" * 64, "fp32")
    made = cache.features(patches, groups, look)
    assert made.equal(patches[:, :4].float() + 1)
    # one by one, whatever stands beside it
    assert looked == [(Group(1, 2, 2),), (Group(1, 2, 2),), (Group(1, 2, 3),)]
    assert FeatureCache(tmp_path, "a" * 64, "fp32").features(patches, groups, look).equal(made)
    assert len(looked) == 3
    cache.features(patches[8:], (Group(1, 3, 2),), look)
    cache.features(patches[:4] ^ 1, (Group(1, 2, 2),), look)
    FeatureCache(tmp_path, "b" * 64, "fp32").features(patches, groups, look)
    assert len(looked) == 3 + 2 + 3
    # a rank without a picture
    assert cache.features(patches[:0], (), look).shape == (0, 4)
    half = FeatureCache(tmp_path, "a" * 64, "bf16")
    given = half.features(patches, groups, lambda *two: look(*two).bfloat16())
    assert given.dtype == torch.bfloat16
    assert half.features(patches, groups, look).equal(given)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("", "feature_cache: the tower is trained, its features change; remove the key"),
        ("engine: deepspeed\nzero_stage: 3\n", "under `zero_stage: 3` all ranks run the tower as"),
    ],
)
def test_what_cannot_keep_features_is_said(tmp_path: Path, more: str, says: str) -> None:
    text = CONFIG + f"stop: {{steps: 6}}\nfeature_cache: {tmp_path}\n{more}"
    if more:
        text = text.replace("tower: {lr: 5e-3}", "tower: {train: false}")
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        load_config(tmp_path / "train.yaml")
