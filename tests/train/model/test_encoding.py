"""The tower call by call: the same values however it is cut, the gradient of all frames on average,
and a forward and backward pass that ask no device for a shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tests.support.tiny_model import LAYOUT, layout_of, mixed_samples, tiny_model, tiny_sample
from tests.train.model.test_memory import MEMORY, long_sample
from train.data.collate import Pack, RenderedSample, build_pack
from train.data.tower_plan import TowerRule
from train.engine.recompute import checkpoint_parts
from train.model.encoding import ScaledGradient
from train.model.inputs import pack_inputs
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.parts import PARTS
from train.model.projectors import PROJECTORS

ARRANGEMENTS = {"isf": "isf", "v1": "v1", "perceiver": "queries", "qformer": "queries"}
STOCHASTIC = TowerRule(chunk=40, keep=4)


def videos(position: int = 0) -> list[RenderedSample]:
    return [replace(sample, position=position) for sample in mixed_samples()]


def loss_and_gradients(
    model: SlowFastForConditionalGeneration, pack: Pack
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**pack_inputs(pack)).loss
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), found


def nothing_dropped(pack: Pack) -> Pack:
    """The same calls, all of them learned from."""
    calls = tuple(call._replace(learned=True, scale=None) for call in pack.tower.calls)
    return replace(pack, tower=pack.tower._replace(calls=calls))


@pytest.mark.parametrize("chunk", [5, 40, 10_000])
@pytest.mark.parametrize("layout", [LAYOUT, MEMORY], ids=["plain", "beyond the cap"])
def test_chunks_change_neither_loss_nor_gradients(chunk: int, layout: object) -> None:
    samples = mixed_samples() if layout is LAYOUT else [long_sample(30), *mixed_samples()]
    model = tiny_model(layout=layout).train()
    whole = loss_and_gradients(model, build_pack(samples, layout))
    cut = loss_and_gradients(model, build_pack(samples, layout, TowerRule(chunk=chunk), 3))
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)


def test_the_forward_of_kept_and_dropped_frames_is_that_of_all_frames() -> None:
    model = tiny_model().train()
    pack = build_pack(videos(), LAYOUT, STOCHASTIC)
    kept, gradients = loss_and_gradients(model, pack)
    everything, _ = loss_and_gradients(model, nothing_dropped(pack))
    assert torch.equal(kept, everything)
    at_once = loss_and_gradients(model, build_pack(videos(), LAYOUT))[0]
    assert abs(float(kept - at_once)) <= 1e-5 * abs(float(at_once))
    assert gradients["vision_tower.layers.0.attn.qkv.weight"].abs().max() > 0


def test_the_gradient_is_scaled_and_the_value_is_not() -> None:
    rows = torch.randn(5, 3, requires_grad=True)
    scale = torch.tensor([1.0, 4, 4, 1, 4])[:, None]
    out = ScaledGradient.apply(rows, scale)
    assert torch.equal(out, rows)
    out.sum().backward()
    assert torch.equal(rows.grad, scale.expand(5, 3))


def test_the_mean_of_draws_is_the_gradient_of_all_frames() -> None:
    layout = replace(LAYOUT, slow_frames=32)
    model = tiny_model(layout=layout).train()
    sample = changing_slowly(tiny_sample("video", "video", frames=32, answer=20, layout=layout))
    whole = tower_gradient(model, build_pack([sample], layout))
    drawn = [
        tower_gradient(model, build_pack([replace(sample, position=i)], layout, STOCHASTIC))
        for i in range(24)
    ]
    mean = torch.stack(drawn).mean(0)
    assert torch.cosine_similarity(mean, whole, 0) >= 0.98
    assert 0.8 <= float(mean.norm() / whole.norm()) <= 1.25
    assert torch.cosine_similarity(drawn[0], whole, 0) < 0.999  # one draw is not all frames


def changing_slowly(sample: RenderedSample) -> RenderedSample:
    """As a video's frames do: the last one shows what the first does not."""
    (frames,) = sample.frames
    share = np.linspace(0, 1, len(frames))[:, None, None, None]
    return replace(sample, frames=[np.uint8((1 - share) * frames[0] + share * frames[-1])])


def tower_gradient(model: SlowFastForConditionalGeneration, pack: Pack) -> Tensor:
    gradients = loss_and_gradients(model, pack)[1]
    return torch.cat([g.flatten() for n, g in gradients.items() if n.startswith("vision_tower.")])


def test_other_positions_draw_other_frames_and_the_same_ones_the_same() -> None:
    model = tiny_model().train()
    first, again, other = (
        tower_gradient(model, build_pack(videos(position), LAYOUT, STOCHASTIC))
        for position in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("part", ["tower", "decoder"])
@pytest.mark.parametrize("layout", [LAYOUT, MEMORY], ids=["plain", "beyond the cap"])
def test_checkpointing_one_part_changes_nothing_but_what_that_part_keeps(
    part: str, layout: object
) -> None:
    samples = videos() if layout is LAYOUT else [long_sample(30), *videos()]
    pack = build_pack(samples, layout, STOCHASTIC)
    model = tiny_model(layout=layout)
    checkpoint_parts(model, [])
    plain, ran = loss_and_gradients(model, pack), runs(model, pack)
    checkpoint_parts(model, [part])
    assert all(map(torch.equal, flat(loss_and_gradients(model, pack)), flat(plain)))
    more = runs(model, pack)
    assert {name for name in ran if more[name] > ran[name]} == {PARTS[part][0]}


def flat(found: tuple[Tensor, dict[str, Tensor]]) -> list[Tensor]:
    return [found[0], *found[1].values()]


def runs(model: SlowFastForConditionalGeneration, pack: Pack) -> dict[str, int]:
    """How often the first MLP of tower and decoder runs in a step."""
    counts = {"vision_tower": 0, "language_model": 0}
    places = {
        "vision_tower": model.vision_tower.layers[0].mlp,
        "language_model": model.language_model.model.layers[0].mlp,
    }

    def count(name: str) -> None:
        counts[name] += 1

    hooks = [m.register_forward_pre_hook(lambda *_, n=name: count(n)) for name, m in places.items()]
    loss_and_gradients(model, pack)
    for hook in hooks:
        hook.remove()
    return counts


def test_a_frozen_tower_runs_without_a_graph() -> None:
    model = tiny_model().train()
    model.vision_tower.requires_grad_(False)
    seen = []
    model.vision_tower.register_forward_hook(lambda *call: seen.append(call[2].requires_grad))
    loss_and_gradients(model, build_pack(videos(), LAYOUT, TowerRule(chunk=40)))
    assert len(seen) > 1 and not any(seen)


def faked(mode: FakeTensorMode, value: object) -> object:
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value)
    if isinstance(value, tuple):
        parts = [faked(mode, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


@pytest.mark.parametrize(
    "name",
    ["gsf", "v1", "attn_meanq", "qformer", "learned times", "beyond the cap", "empty"],
)
def test_forward_and_backward_ask_no_tensor_for_its_values(name: str) -> None:
    """A fake tensor has none: .item(), .tolist(), nonzero and the like raise on it."""
    layout, projector = LAYOUT, name if name in PROJECTORS else "gsf"
    if name in PROJECTORS:
        arrangement = ARRANGEMENTS.get(name, "gsf")
        layout = layout_of(arrangement)
    layout = replace(layout, timestamps="learned") if name == "learned times" else layout
    layout = MEMORY if name == "beyond the cap" else layout
    samples = [
        tiny_sample("a", "image", sides=(32, 32), seed=1, layout=layout),
        tiny_sample("b", "video", frames=5, question=20, seed=2, layout=layout),
        tiny_sample("c", seed=3),
        *([long_sample(30)] if name == "beyond the cap" else []),
    ]
    pack = build_pack([] if name == "empty" else samples, layout, STOCHASTIC, 3)
    inputs = pack_inputs(pack)
    with FakeTensorMode() as mode:
        model = tiny_model(layout=layout, projector=projector)
        checkpoint_parts(model, ["tower", "decoder"])
        kept = {"grids": inputs["grids"]}  # stays on the CPU, with its values
        loss = model(**{n: faked(mode, value) for n, value in inputs.items()} | kept).loss
        loss.backward()
    assert isinstance(loss, FakeTensor)
    assert all(p.grad is not None for p in model.parameters())
