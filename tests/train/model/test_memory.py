"""The memory of frames beyond the cap: of fixed size, fed by every frame, bounded in the making."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixtures.tokens.frame_view import view_clip
from mixtures.tokens.layout_types import START, LayoutConfig, TokenRun, View
from mixtures.tokens.text import Rendered
from mixtures.tokens.token_plan import frames_used, plan_clip
from tests.support.clips import clip_of
from tests.support.tiny_model import LAYOUT, PAD, VISION_END, VISION_START, tiny_model, tiny_sample
from train.data.collate import Pack, RenderedSample, build_pack, empty_pack
from train.data.tower_plan import TowerRule
from train.model.inputs import pack_inputs, packed_row
from train.model.memory import LongMemory
from train.model.modeling import SlowFastForConditionalGeneration

TOKENS, CAP = 6, 8
MEMORY = replace(LAYOUT, memory_tokens=TOKENS)


def long_sample(frames: int, layout: LayoutConfig = MEMORY, key: str = "long") -> RenderedSample:
    """A clip of so many stored frames, at one a second, of which a view shows 8."""
    clip = clip_of(list(range(frames)), (1, 1), size=(64, 64))
    clip_view = view_clip(clip, View(fps=1, cap=CAP, area=64 * 64, memory=4096), layout)
    slots = plan_clip(clip_view, "video", layout, len)
    ids, visual = [5, 6], []
    for index, slot in enumerate(slots):
        visual.append((len(ids), 0, index))
        ids += [id_of(slot)] * slot.n
    ids += [7, 8, 9]
    random = np.random.default_rng(0)
    return RenderedSample(
        key=key,
        text=Rendered(
            ids=np.array(ids, np.int32),
            supervised=np.arange(len(ids)) >= len(ids) - 2,
            visual=np.array(visual, np.int64),
        ),
        layouts=[slots],
        frames=[random.integers(0, 256, (len(frames_used(slots)), 4, 4, 768), np.uint8)],
        seconds=[[float(clip_view.seconds[i]) for i in frames_used(slots)]],
    )


def id_of(slot: TokenRun) -> int:
    if slot.kind in ("start", "end"):
        return VISION_START if slot.kind == START else VISION_END
    return PAD


def model() -> SlowFastForConditionalGeneration:
    return tiny_model(layout=MEMORY)


@pytest.mark.parametrize("frames", [9, 64, 1024])
def test_any_number_of_frames_takes_the_same_tokens(frames: int) -> None:
    short, long = long_sample(CAP), long_sample(frames)
    assert len(long.text.ids) == len(short.text.ids) + TOKENS
    pack = build_pack([long], MEMORY)
    assert (len(pack.grids), len(pack.memory.grids)) == (CAP, frames - CAP)
    assert (pack.tokens[pack.memory.position] == PAD).all()
    assert len(pack.memory.position) == TOKENS


def test_pixels_of_the_first_and_the_last_of_1024_frames_have_a_gradient() -> None:
    made, inputs = model(), pack_inputs(build_pack([long_sample(1024)], MEMORY))
    patches = inputs["memory"].patches.float().requires_grad_()
    shown = inputs["patches"].float().requires_grad_()
    inputs |= {"memory": inputs["memory"]._replace(patches=patches), "patches": shown}
    made(**inputs).loss.backward()
    per_frame = patches.grad.unflatten(0, (-1, 16)).abs().amax((1, 2))
    assert len(per_frame) == 1016 and per_frame.min() > 0
    assert shown.grad[:16].abs().max() > 0 and shown.grad[-16:].abs().max() > 0


def test_with_a_frozen_tower_the_averages_of_every_frame_have_a_gradient() -> None:
    torch.manual_seed(0)
    memory = LongMemory(24, 32, TOKENS, 3)
    frames = torch.randn(1024, 24, requires_grad=True)
    rows = memory(frames, torch.arange(1024.0), (1024,), torch.ones(1, 1024, dtype=torch.bool))
    assert rows.shape == (TOKENS, 32)
    (rows * torch.randn_like(rows)).sum().backward()
    assert frames.grad[0].abs().max() > 0 and frames.grad[-1].abs().max() > 0


class Live(TorchDispatchMode):
    """Bytes of all tensors made inside, alive at once: now, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves(args) if torch.is_tensor(t)}
        for tensor in tree_leaves(out):
            if torch.is_tensor(tensor) and tensor.untyped_storage()._cdata not in given:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self.seen:
            return
        self.seen.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def peak_of(frames: int) -> int:
    made = model().train()
    made.vision_tower.requires_grad_(False)
    inputs = pack_inputs(build_pack([long_sample(frames)], MEMORY, TowerRule(chunk=256)))
    with Live() as live:
        made(**inputs).loss.backward()
    assert made.memory.reader.queries.grad.abs().max() > 0
    return live.peak


def test_twice_the_frames_need_less_than_a_tenth_more_memory_under_a_frozen_tower() -> None:
    half, whole = peak_of(512), peak_of(1024)
    assert half > 500_000
    assert whole < 1.1 * half


@torch.no_grad()
def test_clips_of_a_pack_read_their_own_frames() -> None:
    made, one, other = model(), long_sample(20, key="one"), long_sample(33, key="other")
    changed = replace(other, frames=[255 - other.frames[0]])
    packs = [build_pack([one, tiny_sample("x", seed=1), each], MEMORY) for each in (other, changed)]
    results = [hidden(made, pack) for pack in packs]
    end = len(one.text.ids)
    assert torch.equal(results[0][:end], results[1][:end])
    assert not torch.equal(results[0][end:], results[1][end:])
    alone = hidden(made, build_pack([one], MEMORY))
    torch.testing.assert_close(results[0][:end], alone, rtol=1e-5, atol=1e-5)
    second = hidden(made, build_pack([other], MEMORY))
    together = hidden(made, build_pack([one, other], MEMORY))
    torch.testing.assert_close(together, torch.cat([alone, second]), rtol=1e-5, atol=1e-5)


def hidden(made: SlowFastForConditionalGeneration, pack: Pack) -> torch.Tensor:
    return made.hidden(packed_row(pack))


def test_packs_without_such_frames_run_the_memory_and_move_nothing() -> None:
    made = model()
    made(**pack_inputs(empty_pack())).loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in made.parameters())
