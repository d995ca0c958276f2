"""`python -m train run ... --dry-run`: what a run would take, on paper. No weight is read.

Steps and tokens are the manifest's own counts, hours follow from operations at a stated MFU, memory
from a traced step of the fullest pack and the arithmetic of states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rich.table import Table

from mixtures.manifest.contents import SourceContents
from mixtures.manifest.manifest import Manifest
from mixtures.tokens.layout_types import LayoutConfig, View
from train.config import PARTS, Config, check_layout
from train.data.feature_cache import told
from train.data.render import Rules
from train.data.tower_plan import TowerRule
from train.engine.adapters import adapter_sizes
from train.model.config import SlowFastConfig
from train.model_folder import model_config
from train.schedule import check_schedule, share_of, total_steps
from train.sizing.flops import Work, forward_flops
from train.sizing.made_pack import PUBLISHED, Budget, Media, image_of, made_pack, video_of
from train.sizing.memory import RankMemory, part_parameters, rank_memory
from train.sizing.passes import billed
from train.sizing.published_sizes import on_paper
from train.sizing.tracing import trace_step
from train.weights.start import open_sources, text_of, vision_of

MFU, PEAK = 0.4, 989e12
"""What hours are told at: a share of the bf16 operations a second of an H100 or H200."""
RANKS = (1, 8)
SUPERVISED = 256
"""Rows with a loss that a sample is billed for, or all of its tokens if it has fewer."""
VOCABULARY = 151_936
"""Rows of the table of word vectors where no manifest says them: Qwen2.5's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a run is told by: the model, what fills its packs, and the manifest if there is one."""

    config: Config
    model: SlowFastConfig
    budget: Budget
    media: Media
    manifest: Manifest | None

    @property
    def steps(self) -> int | None:
        """None where only a manifest could say."""
        if self.manifest is not None:
            return total_steps(self.config.stop, self.manifest, self.config.global_batch)
        return self.config.stop.steps


def outline(config: Config, manifest: Manifest | None, where: str) -> Outline:
    """Look at what a run would begin with; UserError for what does not fit."""
    # without one: the published packs, and the layout that the config was written for
    if manifest is None:
        layout = config.layout or LayoutConfig()
        model = SlowFastConfig(
            vision_config=vision_of(config, {}),
            text_config=text_of(config, {}, VOCABULARY),
            layout=asdict(layout),
            projector=config.projector,
            pool_before_projection=config.pool_before_projection,
        )
        return Outline(
            config=config, model=model, budget=PUBLISHED, media=video_of(View()), manifest=None
        )
    check_layout(config, manifest.layout, where)
    check_schedule(config.schedule, total_steps(config.stop, manifest, config.global_batch))
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    # an image is a clip of one frame
    totals = manifest.contents.totals
    has_videos = totals.frames > totals.clips
    return Outline(
        config=config,
        model=model_config(config, rules, open_sources(config.parts)),
        budget=Budget(tokens=manifest.pack.tokens, patches=manifest.pack.patches),
        media=video_of(manifest.view)
        if has_videos
        else image_of(manifest.contents.profile.image_area),
        manifest=manifest,
    )


def dry_run(config: Config, manifest: Manifest | None, where: str) -> Iterator[Table | str]:
    """Tables and lines, in the order in which they are to be read."""
    run = outline(config, manifest, where)
    steps = run.steps
    yield f"{'unknown' if steps is None else f'{steps:,}'} steps of {config.global_batch} packs"
    if manifest is None:
        yield (
            f"no --manifest: tokens and hours are unknown; memory is told for packs of "
            f"{run.budget.tokens:,} tokens, of a layout and a view by default, and a table of "
            f"{VOCABULARY:,} word vectors"
        )
    elif steps is not None:
        yield _sources(run, manifest, steps)
    if manifest is not None and config.feature_cache:
        width = run.model.vision_config.hidden_size
        yield told(config.feature_cache, manifest, width, config.precision)
    yield from _memory(run)


def operations(outline: Outline, manifest: Manifest) -> float:
    """Forward and backward over all that a manifest draws in its length, on paper."""
    return sum(_operations(outline, source) for source in manifest.contents.sources)


def _sources(outline: Outline, manifest: Manifest, steps: int) -> Table:
    """Tokens and hours of each source: its share of what `steps` steps draw of the order."""
    # a run may stop within the order, or pass over it more than once
    share = float(share_of(manifest, steps * outline.config.global_batch))
    title = f"hours on one GPU at {MFU:.0%} MFU of {PEAK / 1e12:.0f} TFLOP/s; n GPUs take 1/n"
    table = Table("source", "samples", "tokens", "patches", "hours", title=title)
    sums = [0.0] * 4
    for source in manifest.contents.sources:
        drawn = source.drawn
        row = [
            drawn.samples,
            drawn.tokens,
            drawn.patches,
            _operations(outline, source) / (3600 * MFU * PEAK),
        ]
        row = [value * share for value in row]
        # hours add up like tokens: operations are those of each source by itself
        sums = [a + b for a, b in zip(sums, row, strict=True)]
        table.add_row(source.name, *_cells(row))
    table.add_row("all", *_cells(sums))
    return table


def _cells(row: list[float]) -> list[str]:
    *counts, hours = row
    return [*(f"{count:,.0f}" for count in counts), f"{hours:,.2f}"]


def _operations(outline: Outline, contents: SourceContents) -> float:
    """Forward and backward over what is drawn of a source, billed by its mean sample."""
    drawn = contents.drawn
    if not drawn.samples:
        return 0.0
    # the mean sample stands for all: attention grows with squares, so this is a little low
    tokens, frames = drawn.tokens // drawn.samples, -(-drawn.frames // drawn.samples)
    patches = drawn.patches // max(drawn.frames, 1)
    work = Work(
        frames=[patches] * frames,
        samples=[tokens],
        pooled=tokens if frames else 0,
        supervised=min(tokens, SUPERVISED),
    )
    asked, _ = billed(outline.config, forward_flops(outline.model, work))
    return drawn.samples * asked


def _memory(outline: Outline) -> Iterator[Table | str]:
    config = outline.config
    rule = config.stochastic
    # packs of one forward pass lie in memory together
    packs = Budget(
        tokens=outline.budget.tokens * config.micro_batch,
        patches=outline.budget.patches * config.micro_batch,
    )
    tower = TowerRule(chunk=config.tower_chunk, keep=rule.keep.denominator, seed=rule.seed)
    pack = made_pack(packs, outline.model.layout_config(), outline.media, tower)
    yield (
        f"the fullest pack: {len(pack.tokens):,} tokens, {len(pack.patches):,} patches of "
        f"{len(pack.grids):,} frames, {pack.supervised:,} rows with a loss"
    )
    # one trace does for every number of ranks: only states are shared
    step, counts = trace_step(config, outline.model, pack), part_parameters(outline.model)
    adapters = adapter_sizes(on_paper(outline.model), config.parts)
    for ranks in RANKS if config.engine == "deepspeed" else (1,):
        yield _rank_table(rank_memory(config, counts, ranks, step, adapters), ranks)


def _rank_table(rank_memory: RankMemory, ranks: int) -> Table:
    table = Table("GiB", *PARTS, "all", title=f"memory of each of {ranks} ranks")
    for kind, parts in rank_memory.states.items():
        table.add_row(kind, *map(_gib, parts.values()), _gib(sum(parts.values())))
    nothing = [""] * len(PARTS)
    for kind, size in rank_memory.passing.items():
        table.add_row(kind, *nothing, _gib(size))
    # phases follow each other: of them the fullest counts, not their sum
    for phase, size in rank_memory.step.phases.items():
        table.add_row(f"activations: {phase}", *nothing, _gib(size))
    table.add_row("at the fullest", *nothing, _gib(rank_memory.total))
    return table


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.2f}"
