"""Projectors: what a pooled token is made of, each against a plain second definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, scaled_dot_product_attention

from mixtures.tokens.layout_types import LEARNED, LayoutConfig
from shards.errors import UserError
from tests.support.tiny_model import LAYOUT, layout_of, mixed_samples, tiny_sample
from train.data.collate import Pack, RenderedSample, build_pack, empty_pack
from train.data.tower_plan import FrameGroups, frame_groups
from train.model.inputs import moved, pack_inputs
from train.model.projectors import PROJECTORS, Projector, build_projector, pool
from train.model.resamplers import resample

ARRANGEMENTS = {"isf": "isf", "v1": "v1", "perceiver": "queries", "qformer": "queries"}


def layout_for(name: str, **more: object) -> LayoutConfig:
    return layout_of(ARRANGEMENTS.get(name, "gsf"), **more)


def projector_for(name: str, width: int = 24, hidden: int = 32, **more: object) -> Projector:
    torch.manual_seed(0)
    layout = layout_for(name, **more)
    return build_projector(name, width, hidden, layout, heads=3)


def project(projector: Projector, pack: Pack, features: Tensor) -> Tensor:
    inputs = pack_inputs(pack)
    return projector(features, inputs["tower"].frames, inputs["slots"], inputs["seconds"])


def mixed(layout: LayoutConfig) -> list[RenderedSample]:
    """`tests.support.tiny_model.mixed_samples` under another layout."""
    return [
        tiny_sample("a", "image", sides=(32, 32), seed=1, layout=layout),
        tiny_sample("b", "video", frames=5, question=20, seed=2, layout=layout),
        tiny_sample("c", seed=3),
        tiny_sample("d", "image", sides=(96, 32), question=9, seed=4, layout=layout),
        tiny_sample("e", "video", sides=(128, 64), frames=2, seed=5, layout=layout),
    ]


def frames_of(grids: np.ndarray) -> FrameGroups[Tensor]:
    return moved(frame_groups(grids), torch.device("cpu"))


def of_kind(rows: Tensor, pack: Pack) -> Tensor:
    """The rows that are pooled tokens."""
    return rows[torch.from_numpy(pack.patch_index.feature >= len(LEARNED))]


def test_pooling_equals_avg_pool2d_on_both_paths() -> None:
    pack = build_pack([tiny_sample("a", "video", sides=(128, 64), frames=3)], LAYOUT)
    features = torch.randn(len(pack.patches), 7)
    pooled = pool(features, pack_inputs(pack)["slots"])
    maps = features.view(3, 4, 8, 7).permute(0, 3, 1, 2)
    slow = avg_pool2d(maps[[0, 1]], 2).permute(0, 2, 3, 1).reshape(-1, 7)
    fast = avg_pool2d(maps, 4).permute(0, 2, 3, 1).reshape(-1, 7)
    torch.testing.assert_close(pooled, torch.cat([slow, fast]))


def test_image_patches_are_projected_one_by_one() -> None:
    pack = build_pack([tiny_sample("a", "image")], LAYOUT)
    features = torch.randn(16, 7)
    assert torch.equal(pool(features, pack_inputs(pack)["slots"]), features)


@pytest.mark.parametrize("name", ["gsf", "isf"])
def test_rows_follow_the_layout_and_pooling_comes_before_projection(name: str) -> None:
    layout = layout_for(name)
    sample = tiny_sample("a", "video", frames=2, layout=layout)
    projector, features = projector_for(name), torch.randn(32, 24)
    rows = project(projector, build_pack([sample], layout), features)
    kinds = [slot.kind for slot in sample.layouts[0] if slot.kind not in ("start", "end")]
    numbers = [slot.n for slot in sample.layouts[0] if slot.kind not in ("start", "end")]
    expanded = np.repeat(kinds, numbers)
    assert len(rows) == len(expanded)
    for row, kind in zip(rows, expanded, strict=True):
        if kind in LEARNED:
            assert torch.equal(row, projector.learned[LEARNED.index(kind)])
    last_fast = projector.mlp(features[16:].mean(0))
    torch.testing.assert_close(rows[-2], last_fast)


def test_projection_before_pooling_averages_what_was_projected() -> None:
    pack = build_pack([tiny_sample("a", "video", frames=2)], LAYOUT)
    late = build_projector("gsf", 24, 32, LAYOUT, heads=3, pool_first=False)
    features = torch.randn(32, 24)
    rows = project(late, pack, features)
    torch.testing.assert_close(rows[-2], late.mlp(features[16:]).mean(0))


def test_v1_keeps_the_greatest_of_slow_columns_and_averages_fast_cells() -> None:
    layout = layout_for("v1", fast_mode="tokens", fast_stride=2)
    pack = build_pack([tiny_sample("a", "video", frames=2, layout=layout)], layout)
    projector, features = projector_for("v1"), torch.randn(32, 24)
    maps = features.view(2, 4, 4, 24).permute(0, 3, 1, 2)
    slow = max_pool2d(maps, (1, 2)).permute(0, 2, 3, 1).reshape(-1, 24)
    fast = avg_pool2d(maps, 2).permute(0, 2, 3, 1).reshape(-1, 24)
    expected = projector.mlp(torch.cat([slow, fast]))
    first = build_projector("v1", 24, 32, layout, heads=3, pool_first=True)
    first.load_state_dict(projector.state_dict())
    torch.testing.assert_close(project(first, pack, features), expected)
    # Apple's own order: the MLP over every patch, then the same pooling of what came out
    maps = projector.mlp(features).view(2, 4, 4, 32).permute(0, 3, 1, 2)
    slow = max_pool2d(maps, (1, 2)).permute(0, 2, 3, 1).reshape(-1, 32)
    fast = avg_pool2d(maps, 2).permute(0, 2, 3, 1).reshape(-1, 32)
    torch.testing.assert_close(project(projector, pack, features), torch.cat([slow, fast]))


def test_the_dynamic_compressor_doubles_images_and_asks_each_cell() -> None:
    projector, features = projector_for("dynamic_compressor"), torch.randn(32, 24)
    image = build_pack([tiny_sample("a", "image")], LAYOUT)
    rows = of_kind(project(projector, image, features[:16]), image)
    torch.testing.assert_close(rows, projector.mlp(2 * features[:16]))
    video = build_pack([tiny_sample("a", "video", frames=2)], LAYOUT)
    cell = features[16:].double()
    mean = cell.mean(0)
    double = projector.double()
    scores = (double.key(cell) @ double.query(mean)) / 256**0.5
    expected = double.mlp(mean + scores.softmax(0) @ cell).float()
    rows = of_kind(project(projector.float(), video, features), video)
    torch.testing.assert_close(rows[-1], expected, rtol=1e-4, atol=1e-5)


def test_attention_pooling_asks_with_the_mean() -> None:
    projector, features = projector_for("attn_meanq"), torch.randn(32, 24)
    pack = build_pack([tiny_sample("a", "video", frames=2)], LAYOUT)
    rows = of_kind(project(projector, pack, features), pack)
    cell = features[16:]

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(1, (3, 8)).transpose(0, 1)[None]

    query = heads(projector.query(cell.mean(0, keepdim=True)))
    found = scaled_dot_product_attention(
        query, heads(projector.key(cell)), heads(projector.value(cell))
    )
    expected = projector.mlp(projector.out(found[0].transpose(0, 1).flatten(1)))
    torch.testing.assert_close(rows[-1:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["perceiver", "qformer"])
def test_queries_see_their_own_frame_and_no_other(name: str) -> None:
    layout = layout_for(name)
    pack = build_pack(mixed(layout), layout)
    projector, features = projector_for(name), torch.randn(len(pack.patches), 24)
    before = of_kind(project(projector, pack, features), pack).unflatten(0, (-1, 5))
    sizes = pack.grids.prod(1)
    changed = features.clone()
    start = int(sizes[:3].sum())
    changed[start : start + int(sizes[3])] += 1
    after = of_kind(project(projector, pack, changed), pack).unflatten(0, (-1, 5))
    differs = (before != after).flatten(1).any(1)
    assert differs.nonzero().flatten().tolist() == [3]
    alone = resample(
        projector.resampler, features[start : start + int(sizes[3])], frames_of(pack.grids[3:4])
    )
    torch.testing.assert_close(before[3:4], projector.mlp(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["perceiver", "qformer"])
def test_a_new_query_looks_around_its_own_place(name: str) -> None:
    projector = projector_for(name, width=96, queries=4)
    for layer in projector.resampler.layers:
        layer.cross.ask_as_asked()
    features = torch.randn(64, 96, requires_grad=True)  # 8 x 8 patches, a query for each quarter
    rows = resample(projector.resampler, features, frames_of(np.array([[8, 8]])))[0]
    for query, row in enumerate(rows):
        (felt,) = torch.autograd.grad(row.square().sum(), features, retain_graph=True)
        quarters = felt.norm(dim=1).view(2, 4, 2, 4).sum((1, 3)).flatten()
        assert quarters.argmax() == query and quarters[query] > 0.4 * quarters.sum()


@pytest.mark.parametrize("name", PROJECTORS)
def test_every_projector_gives_one_row_per_visual_slot_and_every_weight_a_gradient(
    name: str,
) -> None:
    times = "none" if name == "v1" else "learned"
    layout = layout_for(name, timestamps=times)
    pack = build_pack(mixed(layout), layout)
    projector = projector_for(name, timestamps=times)
    features = torch.randn(len(pack.patches), 24, requires_grad=True)
    rows = project(projector, pack, features)
    assert rows.shape == (len(pack.patch_index.position), 32)
    (rows * torch.randn_like(rows)).sum().backward()
    assert all(p.grad is not None for p in projector.parameters())
    assert features.grad.abs().sum(1).min() > 0


@pytest.mark.parametrize("name", PROJECTORS)
def test_every_projector_accepts_no_pixels_at_all(name: str) -> None:
    projector = projector_for(name)
    rows = project(projector, empty_pack(), torch.zeros(0, 24))
    assert rows.shape == (0, 32)
    rows.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in projector.parameters())


def test_parameter_counts_are_those_of_their_parts() -> None:
    c, d, pooled = 24, 32, 256
    mlp = len(LEARNED) * d + c * d + d + d * d + d
    attention, norm, feed = 4 * (c * c + c), 2 * c, 8 * c * c + 5 * c
    expected = {
        "gsf": mlp,
        "isf": mlp,
        "avgpool": mlp,
        "v1": mlp,
        "dynamic_compressor": mlp + 2 * (c * pooled + pooled),
        "attn_meanq": mlp + attention,
        "perceiver": mlp + 5 * c + 2 * (attention + feed + 3 * norm),
        "qformer": mlp + 5 * c + 2 * (2 * attention + feed + 4 * norm),
    }
    found = {name: sum(p.numel() for p in projector_for(name).parameters()) for name in PROJECTORS}
    assert found == expected


def test_learned_times_move_the_ends_of_frames_alone() -> None:
    pack = build_pack([tiny_sample("a", "video", frames=3)], LAYOUT)
    projector, features = projector_for("gsf", timestamps="learned"), torch.randn(48, 24)
    inputs = pack_inputs(pack)
    rows = [
        projector(features, inputs["tower"].frames, inputs["slots"], inputs["seconds"] + later)
        for later in (0.0, 0.5)
    ]
    moved = (rows[0] != rows[1]).any(1)
    ends = inputs["slots"].feature == LEARNED.index("frame")
    assert torch.equal(moved, ends) and int(ends.sum()) == 5


@pytest.mark.parametrize(
    ("name", "arrangement", "said"),
    [
        ("isf", "gsf", "plan a manifest with `arrangement: isf`"),
        ("gsf", "isf", "arrangement: gsf"),
        ("attn_meanq", "queries", "does not fit"),
        ("magic", "gsf", "unknown 'magic'; use one of gsf, isf"),
    ],
)
def test_a_projector_of_another_layout_is_refused(name: str, arrangement: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        layout = LayoutConfig(arrangement=arrangement)
        build_projector(name, 8, 8, layout, heads=1, pool_first=True)


def test_grids_that_pooling_does_not_divide_are_named_with_sample_and_numbers() -> None:
    sample = tiny_sample("odd-one", "video", frames=2)
    narrow = replace(sample, frames=[np.zeros((2, 4, 3, 768), np.uint8)])
    with pytest.raises(
        ValueError, match=r"odd-one, clip 0: a \(4, 3\) grid does not divide by .* 2"
    ):
        build_pack([narrow], LAYOUT)


def test_mixed_samples_are_those_of_the_house() -> None:
    pairs = zip(mixed(LAYOUT), mixed_samples(), strict=True)
    assert all(np.array_equal(a.text.ids, b.text.ids) for a, b in pairs)
