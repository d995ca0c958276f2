"""Packs: tokens, labels, pixels and visual slots agree, sample by sample."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.tokens.layout_types import LEARNED, LayoutConfig, View
from mixtures.tokens.text import Rendered, TextCodec
from shards.sample import Turn
from tests.support.made_pool import TOKENIZER
from tests.support.tiny_model import LAYOUT, PAD, mixed_samples, tiny_sample
from train.data.collate import RenderedSample, build_pack, empty_pack
from train.data.render import Rules, render


def rules(codec: TextCodec) -> Rules:
    return Rules(view=View(), layout=LAYOUT, codec=codec)


def same(a: object, b: object) -> bool:
    """Whether two packs, or parts of them, hold the same."""
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def test_samples_written_into_one_array_are_packed_without_a_copy() -> None:
    samples = mixed_samples()
    frames = [frame for sample in samples for frame in sample.frames]
    room = np.concatenate([frame.reshape(-1, 768) for frame in frames])
    parts = np.split(room, np.cumsum([frame.size // 768 for frame in frames])[:-1])
    given = iter([p.reshape(f.shape) for p, f in zip(parts, frames, strict=True)])
    placed = [replace(s, frames=[next(given) for _ in s.frames]) for s in samples]
    pack = build_pack(placed, LAYOUT)
    assert np.shares_memory(pack.patches, room) and same(pack, build_pack(samples, LAYOUT))
    apart = build_pack([placed[0], *placed[2:]], LAYOUT)
    assert same(apart, build_pack([samples[0], *samples[2:]], LAYOUT))


def test_labels_name_the_next_token_and_never_cross_samples() -> None:
    samples = mixed_samples()
    pack = build_pack(samples, LAYOUT)
    ends = pack.cu_seqlens[1:] - 1
    assert (pack.labels[ends] == -100).all()
    for sample, start, end in zip(samples, pack.cu_seqlens[:-1], pack.cu_seqlens[1:], strict=True):
        ids, wanted = sample.text.ids, sample.text.supervised
        assert np.array_equal(pack.tokens[start:end], ids)
        assert np.array_equal(pack.positions[start:end], np.arange(end - start))
        expected = np.where(wanted[1:], ids[1:], -100)
        assert np.array_equal(pack.labels[start : end - 1], expected)
    assert pack.supervised == sum(int(s.text.supervised.sum()) for s in samples)
    assert pack.keys == tuple("abcde")


def test_an_answer_without_a_loss_has_no_labels() -> None:
    codec = TextCodec(TOKENIZER)
    said = (("user", "which?"), ("assistant", "seven"), ("user", "and?"), ("assistant", "nine"))
    for losses, learned in (((1, 1), ["seven", "nine"]), ((0, 1), ["nine"]), ((0, 0), [])):
        turns = tuple(
            Turn(role=role, text=text, loss=losses[number // 2])
            for number, (role, text) in enumerate(said)
        )
        pack = build_pack([render("a", turns, (), lambda *_: None, rules(codec))], LAYOUT)  # type: ignore[arg-type]
        taught = pack.labels[pack.labels != -100].tolist()
        end = codec.token_id("<|im_end|>")
        assert taught == [token for text in learned for token in [*codec.encode(text), end]]


def test_the_first_token_of_a_sample_is_no_target_of_the_one_before() -> None:
    sample = tiny_sample("a")
    learned = replace(sample.text, supervised=np.ones(len(sample.text.ids), bool))
    pack = build_pack([replace(sample, text=learned)] * 2, LAYOUT)
    assert pack.labels[len(sample.text.ids) - 1] == -100
    assert pack.supervised == 2 * (len(sample.text.ids) - 1)


def test_visual_rows_are_the_pads_and_tokens_average_their_own_frame() -> None:
    pack = build_pack(mixed_samples(), LAYOUT)
    index = pack.patch_index
    assert np.array_equal(index.position, np.flatnonzero(pack.tokens == PAD))
    pooled = index.feature[index.feature >= len(LEARNED)] - len(LEARNED)
    assert np.array_equal(pooled, np.arange(len(index.sizes)))
    assert np.array_equal(np.bincount(index.segment), index.sizes)
    frame_of_patch = np.repeat(np.arange(len(pack.grids)), pack.grids.prod(axis=1))
    assert len(frame_of_patch) == len(pack.patches)
    sample_of_frame = np.repeat([0, 1, 3, 4], [1, 5, 1, 2])
    sample_of_row = np.searchsorted(pack.cu_seqlens, index.position, side="right") - 1
    seen = sample_of_frame[frame_of_patch[index.patch]]
    rows = sample_of_row[index.feature >= len(LEARNED)]
    assert np.array_equal(seen, rows[index.segment])


def test_slow_only_encodes_slow_frames_only() -> None:
    slow = LayoutConfig(slow_frames=2, pathways="slow")
    sample = tiny_sample("a", "video", frames=6, layout=slow)
    pack = build_pack([sample], slow)
    assert pack.grids.tolist() == [[4, 4], [4, 4]]
    assert pack.times.tolist() == [0.0, 1.5]
    assert pack.patch_index.patch.tolist() == sorted(
        pack.patch_index.patch.tolist(), key=lambda p: p // 16
    )
    assert set(pack.patch_index.patch.tolist()) == set(range(32))


def test_placeholders_that_disagree_with_features_are_named() -> None:
    sample = tiny_sample("odd-one", "image")
    fewer = replace(sample.text, visual=sample.text.visual[:-3])
    with pytest.raises(ValueError, match=r"odd-one, clip 0: 15 placeholders, 20 features"):
        build_pack([replace(sample, text=fewer)], LAYOUT)


def test_frames_that_disagree_with_the_layout_are_named() -> None:
    sample = tiny_sample("odd-one", "video", frames=3)
    with pytest.raises(ValueError, match="odd-one, clip 0: 2 frames, 3 frames in the layout"):
        build_pack([replace(sample, frames=[sample.frames[0][:2]])], LAYOUT)
    wide = [sample.frames[0].repeat(2, axis=2)]
    with pytest.raises(ValueError, match="odd-one, clip 0: a slow row of 2 tokens over 4"):
        build_pack([replace(sample, frames=wide)], LAYOUT)


def test_an_empty_pack_supervises_nothing_and_has_no_pixels() -> None:
    pack = empty_pack()
    assert (pack.supervised, len(pack.patches), len(pack.grids), pack.keys) == (0, 0, 0, ())
    assert same(build_pack([], LAYOUT), pack)


def test_a_conversation_without_a_word_is_a_pack_without_rows() -> None:
    nothing = Rendered(
        ids=np.zeros(0, np.int32),
        supervised=np.zeros(0, bool),
        visual=np.zeros((0, 3), np.int64),
    )
    pack = build_pack(
        [RenderedSample(key="k", text=nothing, layouts=[], frames=[], seconds=[])], LAYOUT
    )
    assert (len(pack.tokens), pack.supervised, pack.cu_seqlens.tolist()) == (0, 0, [0, 0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_every_sample_stands_in_a_pack_as_it_does_alone(chosen: list[int]) -> None:
    samples = [mixed_samples()[i] for i in chosen]
    pack = build_pack(samples, LAYOUT)
    row = frame = pooled = use = slot = patch = 0
    for sample in samples:
        alone = build_pack([sample], LAYOUT)
        rows, frames = slice(row, row + len(alone.tokens)), slice(frame, frame + len(alone.grids))
        for name in ("tokens", "labels", "positions"):
            assert np.array_equal(getattr(pack, name)[rows], getattr(alone, name))
        assert np.array_equal(pack.grids[frames], alone.grids)
        assert np.array_equal(pack.times[frames], alone.times)
        mine, own = alone.patch_index, pack.patch_index
        uses, slots = slice(use, use + len(mine.patch)), slice(slot, slot + len(mine.position))
        tokens = slice(pooled, pooled + len(mine.sizes))
        assert np.array_equal(own.position[slots], mine.position + row)
        assert np.array_equal(own.frame[slots], np.where(mine.frame < 0, -1, mine.frame + frame))
        learned = mine.feature < len(LEARNED)
        assert np.array_equal(own.feature[slots], mine.feature + np.where(learned, 0, pooled))
        assert np.array_equal(own.patch[uses], mine.patch + patch)
        assert np.array_equal(own.segment[uses], mine.segment + pooled)
        assert np.array_equal(own.sizes[tokens], mine.sizes)
        assert np.array_equal(own.kind[tokens], mine.kind)
        row, frame, pooled = rows.stop, frames.stop, tokens.stop
        use, slot, patch = uses.stop, slots.stop, patch + len(alone.patches)
    assert (row, frame, pooled) == (len(pack.tokens), len(pack.grids), len(pack.patch_index.sizes))
