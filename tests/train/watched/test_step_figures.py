"""What is billed for a step, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from tests.support.tiny_model import LAYOUT, mixed_samples, tiny_model
from train.adapter import Adapter
from train.config import Config, Part, Parts, Stochastic
from train.data.collate import build_pack, empty_pack
from train.sizing.flops import Flops, Recomputed, Work, forward_flops
from train.sizing.passes import billed
from train.watched.progress import line
from train.watched.step_figures import figures, memory_bytes, operations, peak_of

AGAIN = Recomputed(vision=90, text=900, head=40)
ONE = Flops(vision=100, projector=10, text=1000, head=50, again=AGAIN)
FROZEN = Part(train=False)
ADAPTED = Part(adapter=Adapter())


@pytest.mark.parametrize(
    ("config", "asked", "again"),
    [
        (Config(), 3 * 1160, 40),
        (Config(parts=Parts(tower=FROZEN)), 100 + 3 * 1060, 40),
        # gradients pass through a decoder that is not trained
        (Config(parts=Parts(tower=FROZEN, decoder=FROZEN)), 100 + 30 + 2 * 1050, 40),
        (Config(parts=Parts(tower=FROZEN, projector=FROZEN)), 110 + 3 * 1050, 40),
        # an adapter's own products are left out; gradients pass through what it is added to
        (Config(parts=Parts(tower=FROZEN, decoder=ADAPTED)), 100 + 30 + 2 * 1050, 40),
        (Config(stochastic=Stochastic(keep=Fraction(1, 4))), 150 + 3 * 1060, 40),
        (Config(parts=Parts(decoder=Part(checkpoint=True))), 3 * 1160, 40 + 900),
        (Config(parts=Parts(tower=Part(checkpoint=True))), 3 * 1160, 40 + 90),
    ],
)
def test_each_part_is_billed_for_the_passes_that_it_takes_part_in(
    config: Config, asked: float, again: float
) -> None:
    assert billed(config, ONE) == (asked, again)


def test_a_pack_is_billed_frame_by_frame_and_sample_by_sample() -> None:
    model = tiny_model().config
    pack = build_pack(mixed_samples(), LAYOUT)
    work = Work(
        frames=[rows * columns for rows, columns in pack.grids.tolist()],
        samples=[len(sample.text.ids) for sample in mixed_samples()],
        pooled=len(pack.patch_index.sizes),
        supervised=pack.supervised,
    )
    asked, computed = operations(Config(), model, [pack, pack])
    assert asked == 2 * billed(Config(), forward_flops(model, work))[0]
    # few rows have a loss: their logits are one chunk, which is kept
    assert computed == asked
    assert operations(Config(), model, [empty_pack()])[0] < asked / 100


def test_a_device_is_known_by_its_name() -> None:
    assert peak_of("NVIDIA H200") == peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("NVIDIA H100 PCIe") == 756e12 and peak_of("GeForce 256") is None


def test_a_line_says_how_the_step_went() -> None:
    told = figures(replace(Config(), global_batch=2), 500, 800, 4.0, lambda: (1e12, 2e12))
    assert told["tokens_per_second"] == 200.0 and told["fill"] == 0.8
    assert told["mfu"] is None and told["hfu"] is None
    assert 1 << 20 < memory_bytes() < 1 << 40
    row = {"loss": 2.5, "data_seconds": 1.0, "compute_seconds": 3.0, **told}
    row |= {"memory_bytes": 3 * 2**30}
    assert line(row) == "loss 2.500 200 tokens/s wait 25% fill 80% 3.0 GiB"
    assert line(row | {"loss": float("nan")}).startswith("no loss, 200 tokens/s wait")
    row |= {"mfu": 0.412, "hfu": 0.5}
    assert "tokens/s MFU 41% HFU 50% wait" in line(row)
