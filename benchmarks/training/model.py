"""The model: tokens per video, the packed tower beside its rivals, projector, first token.

Real widths and few blocks, so that a laptop's processor can run it: what counts are ratios. Both
sides of a ratio run interleaved on the same images, one thread, CPU time; their outputs are
compared. Run by hand: python -m benchmarks model (about ten minutes of one core).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from benchmarks.frame import Bar, at_least, at_most
from mixtures.tokens.layout_types import LayoutConfig
from mixtures.tokens.text import Rendered
from mixtures.tokens.token_plan import plan_frames
from shards.errors import UserError
from train.data.collate import Pack, RenderedSample, build_pack
from train.data.tower_plan import groups_of
from train.model.config import SlowFastConfig
from train.model.inputs import packed_row
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.vision import Block, OryxVisionConfig, OryxVisionTower, normalised
from train.sizing.published_sizes import TEXT
from train.sizing.tables import READINGS, VIDEOS, video_tokens

PUBLISHED = {
    "Oryx-1.5": 14_000,
    "LLaVA-Video": 11_000,
    "Qwen2-VL": 16_000,
    "InternVL2.5": 16_000,
    "Apollo": 3_000,
}
"""Tokens per video as AToken's table gives them."""
LARGE = (
    (6, 6),
    (12, 12),
    (6, 20),
    (8, 12),
    (24, 24),
    (9, 16),
    (16, 9),
    (12, 20),
    (10, 10),
    (18, 24),
)
SMALL = (
    *((4, 4), (5, 7), (6, 6), (10, 10), (4, 9), (7, 10), (8, 8), (4, 6), (6, 12), (5, 5)),
    *((9, 4), (4, 12), (4, 5), (7, 7), (6, 4), (5, 10), (10, 7), (4, 7), (8, 5), (6, 9)),
)
LISTS = {"36-576": LARGE, "16-100": SMALL}
BLOCKS, ROUNDS = 2, 5
PAD, START, END = 3, 1, 2


def run(console: Console) -> list[Bar]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        return [*tokens(console), *tower_bars(console), *share(console), *first_token(console)]


def tokens(console: Console) -> list[Bar]:
    """Tokens of 128 frames in both readings of "4x4", beside published models."""
    table = Table("shape", *(f"{what} {name}" for name in READINGS for what in ("content", "all")))
    counts = {
        shape: [video_tokens(size, name) for name in READINGS] for shape, size in VIDEOS.items()
    }
    for shape, pairs in counts.items():
        table.add_row(shape, *(f"{count:,}" for pair in pairs for count in pair))
    console.print(table)
    console.print("published: " + ", ".join(f"{name} {n:,}" for name, n in PUBLISHED.items()))
    every = [pair for pairs in counts.values() for pair in pairs]
    most = max(total for _, total in every)
    return [
        at_most("content tokens of a video, most", max(content for content, _ in every), 9216),
        at_most("tokens of a video, most", most, 10_240),
        at_most("tokens of a video / Oryx-1.5's", most / PUBLISHED["Oryx-1.5"], 0.75),
    ]


def tower_bars(console: Console) -> list[Bar]:
    """The packed tower against one call per image, and against a batch padded to the longest."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tower = OryxVisionTower(OryxVisionConfig(num_hidden_layers=BLOCKS)).to(device)
    wanted = {"36-576": 1.5, "16-100": 1.5} if device == "cuda" else {"36-576": 0.95, "16-100": 1.3}
    bars = []
    for name, sizes in LISTS.items():
        console.print(f"{name} patches: " + " ".join(f"{h}x{w}" for h, w in sizes), soft_wrap=True)
        grids = torch.tensor(sizes)
        patches = torch.randn(int(grids.prod(1).sum()), 768, device=device)
        ways = {
            "packed": partial(tower, patches, grids),
            "one by one": partial(one_by_one, tower, patches, grids),
            "padded": partial(padded, tower, patches, grids),
        }
        agree(ways)
        seconds = interleaved(ways, device)
        what = f"packed tower, {name} patches, {device}: times as fast as"
        bars += [
            at_least(f"{what} one by one", seconds["one by one"] / seconds["packed"], wanted[name]),
            at_least(f"{what} a padded batch", seconds["padded"] / seconds["packed"], 1.5),
        ]
    if device == "cpu":
        what, why = "packed tower on an accelerator / one by one", "no accelerator on this machine"
        bars.append(Bar(what=what, value=None, bar=">= 1.5", holds=False, why=why))
    return bars


def one_by_one(tower: OryxVisionTower, patches: Tensor, grids: Tensor) -> Tensor:
    parts = patches.split(grids.prod(1).tolist())
    calls = [tower(part, grid[None]) for part, grid in zip(parts, grids, strict=True)]
    return torch.cat(calls)


def padded(tower: OryxVisionTower, patches: Tensor, grids: Tensor) -> Tensor:
    """The same weights over one batch [N, L, C] as long as its longest image, masked."""
    counts = grids.prod(1).tolist()
    groups = [groups_of(grid[None].numpy()) for grid in grids]
    placed = [
        tower.embeddings(part, group)
        for part, group in zip(patches.split(counts), groups, strict=True)
    ]
    x = pad_sequence(placed, batch_first=True)
    real = torch.arange(x.shape[1]) < torch.tensor(counts)[:, None]
    real = real.to(x.device)
    for layer in tower.layers:
        x = padded_block(layer, x, real[:, None, None])
    return x[real]


def padded_block(block: Block, x: Tensor, mask: Tensor) -> Tensor:
    qkv = block.attn.qkv(block.norm1(x)).unflatten(2, (3, block.attn.heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    found = scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    x = x + block.attn.proj(found)
    return x + block.mlp(block.norm2(x))


def agree(ways: Mapping[str, Callable[[], Tensor]]) -> None:
    """Every way gives the same features; this also warms them up."""
    results = [way() for way in ways.values()]
    worst = max(float((result - results[0]).abs().max()) for result in results)
    if worst > 1e-3:
        raise UserError(f"the ways of running the tower differ by {worst}; nothing was measured")


def interleaved(ways: Mapping[str, Callable[[], Tensor]], device: str) -> dict[str, float]:
    """Median seconds of each way over rounds in which each runs once."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            seconds[name].append(timed(way, device))
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(way: Callable[[], object], device: str) -> float:
    """CPU seconds on a processor, wall seconds on an accelerator."""
    clock = time.process_time
    if device == "cuda":
        clock = time.perf_counter
        torch.cuda.synchronize()
    start = clock()
    way()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def share(console: Console) -> list[Bar]:
    """Projector and splice of a 1b model beside the whole tower of 27 blocks."""
    text = TEXT["1b"] | {"num_hidden_layers": 1, "vocab_size": 64}
    model = SlowFastForConditionalGeneration(SlowFastConfig(vision_config={}, text_config=text))
    row = packed_row(video_pack(4, 256, model.config.layout_config()))
    shown = row.visual
    kept: list[Tensor] = []

    def tower() -> None:
        pixels = normalised(shown.patches, next(model.parameters()))
        kept[:] = [model.vision_tower(pixels, shown.grids)]

    def project_and_splice() -> None:
        rows = model.get_input_embeddings()(row.ids)
        made = model.projector(kept[0], shown.tower.frames, shown.patch_index, shown.seconds)
        rows.index_copy(0, shown.patch_index.position, made)

    spent = [timed(tower, "cpu"), *(timed(project_and_splice, "cpu") for _ in range(3))]
    console.print(f"27 blocks {spent[0]:.2f} s, projector and splice {min(spent[1:]):.4f} s")
    return [at_most("projector and splice / tower", statistics.median(spent[1:]) / spent[0], 0.05)]


def first_token(console: Console) -> list[Bar]:
    """From decoded frames to the first token, 128 frames of one video."""
    what = "seconds to the first token, 128 frames of 384x384, 1b, accelerator"
    if torch.cuda.is_available():
        config = SlowFastConfig(vision_config={}, text_config=TEXT["1b"])
        with torch.device("cuda"):
            full = SlowFastForConditionalGeneration(config).to(torch.bfloat16).eval()
        pack = video_pack(128, 384, config.layout_config())
        spent = [timed(partial(answer, full, pack), "cuda") for _ in range(4)]
        return [at_most(what, statistics.median(spent[1:]), 0.6)]
    one, deeper, longer = (scaled_first_token(*depths) for depths in ((1, 1), (2, 1), (1, 2)))
    block, layer = deeper - one, longer - one
    blocks, layers = OryxVisionConfig().num_hidden_layers, TEXT["1b"]["num_hidden_layers"]
    whole = one + (blocks - 1) * block + (layers - 1) * layer
    console.print(
        f"first token of 128 frames of 384x384, one core, fp32: {one:.1f} s with 1 block of the "
        f"tower and 1 layer of the language model, {block:.1f} s more for a block, {layer:.1f} s "
        f"for a layer; by these, {whole:.0f} s for {blocks} blocks and {layers} layers"
    )
    why = "no accelerator on this machine"
    return [Bar(what=what, value=None, bar="<= 0.6", holds=False, why=why)]


def scaled_first_token(blocks: int, layers: int) -> float:
    """CPU seconds to the first token of a 1b model of so few blocks and layers; full frames."""
    text = TEXT["1b"] | {"num_hidden_layers": layers, "vocab_size": 4096}
    config = SlowFastConfig(vision_config={"num_hidden_layers": blocks}, text_config=text)
    small = SlowFastForConditionalGeneration(config).eval()
    return timed(partial(answer, small, video_pack(128, 384, config.layout_config())), "cpu")


def answer(model: SlowFastForConditionalGeneration, pack: Pack) -> object:
    return model.answer(pack, eos_token_id=0, max_new_tokens=1, do_sample=False)


def video_pack(frames: int, side: int, layout: LayoutConfig) -> Pack:
    """One video of square frames of noise, a stamp taking one token per character, no question."""
    grids = [(side // layout.patch, side // layout.patch)] * frames
    slots = plan_frames(grids, range(frames), "video", layout, len)
    ids: Sequence[int] = []
    visual = []
    for index, slot in enumerate(slots):
        visual.append((len(ids), 0, index))
        ids = [*ids, *[{"start": START, "end": END, "time": 5}.get(slot.kind, PAD)] * slot.n]
    tokens = torch.tensor(ids, dtype=torch.int32).numpy()
    pixels = torch.randint(0, 256, (frames, *grids[0], 768), dtype=torch.uint8).numpy()
    text = Rendered(ids=tokens, supervised=tokens < 0, visual=torch.tensor(visual).numpy())
    sample = RenderedSample(
        key="video",
        text=text,
        layouts=[slots],
        frames=[pixels],
        seconds=[[float(i) for i in range(frames)]],
    )
    return build_pack([sample], layout)
