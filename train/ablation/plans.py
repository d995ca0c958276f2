"""Every run of a grid before it begins: manifest, steps, cost, and what makes it itself.

Manifests are planned over the one pool; nothing is decoded, which is looked at afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixtures.diff import diff
from mixtures.manifest.files import MANIFEST, load_manifest, write_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import Recipe
from shards.errors import Mistakes, UserError
from shards.ids import sha256_file, short_hash
from shards.pool import Pool
from train.ablation.drawn_samples import Drawn, SupervisedTokens
from train.ablation.grid import Grid
from train.ablation.variants import Resolved, seeded
from train.config import PARTS, Config, Stop, check_layout
from train.data.feature_cache import most_bytes
from train.dry_run import Outline, operations, outline
from train.evaluation.copies import copies
from train.evaluation.on_tasks import named_tasks
from train.run_folder.record import PACKAGES
from train.run_folder.settings import deciding, resolved
from train.run_keys import HeldOutLoss
from train.schedule import check_schedule, total_steps
from train.sizing.memory import part_parameters
from train.weights.source import open_source
from train.weights.start import check_start

CONFIG = "train.yaml"
"""What the config of a run is called beside its manifest."""
HELD_OUT = "held_out"
"""The folder of the held-out manifest, there too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run as it will be: `steps` reach `supervised` tokens with a loss, of `tokens` in all.

    `folder` holds its manifest and config. `key` is what makes it itself: manifest, config, starts,
    what is asked, library versions; `key_id` is its digest. `flops` and `nbytes` (of checkpoints
    and model) are on paper. `differs` says what its data have other than the base's; `same_as` is
    the variant before it that trains on the same samples, shown and trained alike, if there is one.
    `relevance` is the folder by which questions select frames, if they do; `feature_bytes` is how
    much of a feature cache the run may fill.
    """

    variant: str
    seed: int
    folder: Path
    pathways: str
    steps: int
    supervised: int
    tokens: int
    flops: float
    nbytes: int
    key: Mapping[str, Any]
    differs: tuple[str, ...] = ()
    same_as: str = ""
    relevance: str = ""
    feature_bytes: int = 0

    @property
    def key_id(self) -> str:
        """32 hex."""
        return short_hash(self.key)

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.variant}.{self.seed}.{self.key_id[:8]}"


def plan_runs(grid: Grid, variants: Sequence[Resolved], out: Path, where: str) -> list[PlannedRun]:
    """Plan every run, seed by seed, the base first; UserError has a line for every mistake."""
    pool = Pool(grid.pool)
    before = pool.store.list("clips")
    planner = _Planner(grid, pool, out, where)
    mistakes = Mistakes()
    runs: list[PlannedRun] = []
    for seed in grid.seeds:
        for one in variants:
            with mistakes.noted(), _told_of(f"{where}: {one.name}"):
                runs.append(planner.plan(one, seed))
        # what is wrong with one seed is wrong with the next
        mistakes.tell()
    # a manifest names what a pool holds: whoever decodes on the way has broken that
    assert pool.store.list("clips") == before, "planning has decoded"
    return runs


@contextmanager
def _told_of(where: str) -> Iterator[None]:
    """Lines of a UserError begin with the variant that they are about."""
    try:
        yield
    except UserError as error:
        lines = (str(line).removeprefix(f"{where}: ") for line in error.args)
        raise UserError(*(f"{where}: {line}" for line in lines)) from error


class _Planner:
    """Plans one run after the other; remembers what they share."""

    def __init__(self, grid: Grid, pool: Pool, out: Path, where: str) -> None:
        self.grid = grid
        self.pool = pool
        self.out = out
        self.where = where
        self.counts = SupervisedTokens(pool)
        self.budget = grid.budget
        self.questions = asked_of(grid)
        self.bases: dict[int, Manifest] = {}
        self.same: dict[tuple[int, str], str] = {}
        self.trained: dict[tuple[int, str], str] = {}
        self.held_out: dict[str, str] = {}

    def plan(self, variant: Resolved, seed: int) -> PlannedRun:
        """The run of a variant with a seed, its manifest and config written."""
        where = f"{self.where}: {variant.name}"
        recipe, config = seeded(variant, seed)
        folder = self.out / "plans" / f"{variant.name}.{seed}"
        manifest = build_manifest(recipe, self.pool).manifest
        self._check_another(variant.name, seed, manifest, config)
        write_manifest(manifest, str(folder))
        drawn = self._drawn(manifest, config)
        config = self._with_held_out(replace(config, stop=Stop(steps=drawn.steps)), recipe)
        if self.grid.feature_cache is not None and not config.parts.tower.train:
            config = replace(config, feature_cache=self.grid.feature_cache)
        same = short_hash([_shown(manifest), drawn.samples, _trained(config)])
        same_as = self.trained.setdefault((seed, same), variant.name)
        on_paper = self._checked(config, manifest, where)
        relevance = _relevance(self.grid, manifest)
        (folder / CONFIG).write_text(resolved(config))
        totals = manifest.contents.totals
        share = drawn.tokens / max(totals.tokens, 1)
        return PlannedRun(
            variant=variant.name,
            seed=seed,
            folder=folder,
            pathways=manifest.layout.pathways,
            steps=drawn.steps,
            supervised=drawn.supervised,
            tokens=drawn.tokens,
            flops=share * operations(on_paper, manifest),
            nbytes=_nbytes(config, part_parameters(on_paper.model)),
            key=self._key(manifest, config, relevance),
            differs=tuple(_differs(self.bases[seed], manifest)),
            same_as="" if same_as == variant.name else same_as,
            relevance=relevance,
            feature_bytes=_feature_bytes(config, manifest, on_paper),
        )

    def _check_another(self, name: str, seed: int, manifest: Manifest, config: Config) -> None:
        """UserError where a variant of another name draws, shows and trains the same."""
        self.bases.setdefault(seed, manifest)
        contents = manifest.contents
        drawn = [contents.order_digest, contents.length]
        same = short_hash([_shown(manifest), *drawn, _trained(config)])
        other = self.same.setdefault((seed, same), name)
        if other != name:
            raise UserError(
                f"draws the samples of {other!r} in the same order, shown "
                "and trained alike: over this pool it changes nothing; remove it"
            )

    def _drawn(self, manifest: Manifest, config: Config) -> Drawn:
        """What a run of the budget draws; the first base says the budget if nobody else does."""
        batch = config.global_batch
        if self.budget is None:
            steps = total_steps(config.stop, manifest, batch)
            self.budget = self.counts.in_steps(manifest, batch, steps)
        return self.counts.steps_of(manifest, batch, self.budget)

    def _with_held_out(self, config: Config, recipe: Recipe) -> Config:
        """The config with the held-out loss behind its last step, shown as the recipe shows."""
        rule = self.grid.held_out
        if rule is None:
            return config
        held_out_recipe = load_recipe(Path(rule.recipe))
        keys = (
            "profile",
            "frames",
            "frame_scores",
            "layout",
            "text",
            "pack_tokens",
            "pack_patches",
        )
        held_out_recipe = replace(held_out_recipe, **{name: getattr(recipe, name) for name in keys})
        # alike for all variants that show alike
        known = str([getattr(recipe, name) for name in keys])
        if known not in self.held_out:
            manifest = build_manifest(held_out_recipe, self.pool).manifest
            home = self.out / "plans" / f"{HELD_OUT}.{manifest.manifest_id[:8]}"
            write_manifest(manifest, str(home))
            self.held_out[known] = str(home / MANIFEST)
        steps = config.stop.steps or 1
        held_out = HeldOutLoss(
            manifest=self.held_out[known], data=self.grid.pool, every=steps, samples=rule.samples
        )
        return replace(config, held_out=held_out)

    def _checked(self, config: Config, manifest: Manifest, where: str) -> Outline:
        """The run on paper; what it would refuse is refused before the first one begins."""
        mistakes = Mistakes()
        with mistakes.noted():
            check_layout(config, manifest.layout, where)
        with mistakes.noted():
            check_schedule(config.schedule, config.stop.steps or 0)
        with mistakes.noted():
            check_start(config, manifest, where)
        mistakes.tell()
        return outline(config, manifest, where)

    def _key(self, manifest: Manifest, config: Config, relevance: str) -> dict[str, Any]:
        held_out, rule = "", config.held_out
        if rule is not None:
            held_out = f"{load_manifest(rule.manifest).manifest_id}, {rule.samples} samples"
        places = {part: getattr(config.parts, part).init for part in PARTS}
        # said where questions select frames: other runs keep the keys that they had
        shown_by = {"relevance": folder_digest(relevance)} if relevance else {}
        return shown_by | {
            "manifest": manifest.manifest_id,
            "config": deciding(config) | {"steps": str(config.stop.steps)},
            "starts": {
                part: start_digest(at) for part, at in places.items() if isinstance(at, str)
            },
            "held_out": held_out,
            "questions": self.questions,
            "floors": list(self.grid.floors),
            "versions": {name: version(name) for name in PACKAGES},
        }


def _shown(manifest: Manifest) -> str:
    """How a manifest shows samples, as far as that is not said by their keys."""
    contents = manifest.contents
    selected_by = manifest.scored_by, contents.canonical
    return str((contents.layout, contents.frames, contents.text, contents.pack, *selected_by))


def _trained(config: Config) -> list[Any]:
    """What decides of a config, and what its parts start from."""
    return [deciding(config), [str(getattr(config.parts, part).init) for part in PARTS]]


def asked_of(grid: Grid) -> dict[str, str]:
    """A digest of the questions of each task file and evaluation set, by name."""
    named = {name: sha256_file(path) for name, path in tasks_of(grid).items()}
    sets = copies(benchmark_words(grid))
    return named | {copy.benchmark.name: copy.digest() for copy in sets}


def tasks_of(grid: Grid) -> dict[str, Path]:
    """The task files of a grid by the names that scores give them; UserError where one is not."""
    paths = [Path(path) for path in grid.tasks]
    for path in paths:
        if not path.is_file():
            raise UserError(f"tasks: {path}: no such file; correct the path")
    return named_tasks(paths)


def benchmark_words(grid: Grid) -> list[str]:
    """NAME=FOLDER of each evaluation set, as the command line of `evaluate` takes it."""
    return [f"{name}={folder}" for name, folder in (grid.benchmarks or {}).items()]


@cache
def start_digest(where: str) -> str:
    """H over the bytes of the weights at a place that a part starts from."""
    source = open_source(where)
    files = sorted({stored.file for stored in source.stored.values()} or {source.path})
    return short_hash([source.digests.get(file.name) or sha256_file(file) for file in files])


def _feature_bytes(config: Config, manifest: Manifest, on_paper: Outline) -> int:
    """Bytes of features of a frozen tower that a run may keep."""
    if not config.feature_cache:
        return 0
    return most_bytes(manifest, on_paper.model.vision_config.hidden_size, config.precision)


def _relevance(grid: Grid, manifest: Manifest) -> str:
    """The folder by which a run's questions select frames, if they do; UserError where it lacks."""
    if manifest.view.selection != "query" or not (grid.tasks or grid.benchmarks):
        return ""
    if grid.relevance is None:
        raise UserError(
            "is shown frames that fit the question, also when it is asked; name a folder of SigLIP "
            "as `relevance`, or give no `tasks` and `benchmarks`"
        )
    return grid.relevance


@cache
def folder_digest(folder: str) -> str:
    """H over the names and bytes of the files of a model folder."""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return short_hash([[path.name, sha256_file(path)] for path in files])


def _nbytes(config: Config, parameters: Mapping[str, int]) -> int:
    """Bytes of a run's folder: its checkpoints, one more while it saves, and the model."""
    trained = sum(count for part, count in parameters.items() if getattr(config.parts, part).train)
    width = 2 if config.precision == "bf16" else 4
    # weights and two moments in fp32 (train.engine.state_files)
    kept = config.keep.last + 1 + (config.keep.best or 0)
    return kept * trained * 12 + sum(parameters.values()) * width


def _differs(base: Manifest, manifest: Manifest) -> Iterator[str]:
    """What the data of a run have other than the base's, source by source, in words."""
    found = diff(base, manifest)
    for name, one in found["sources"].items():
        ours, theirs = one["kept"]
        if ours != theirs:
            yield f"{name}: {ours:,} -> {theirs:,} samples kept"
        shares = [_percent(share) for share in one["token_share"]]
        if shares[0] != shares[1]:
            yield f"{name}: {shares[0]} -> {shares[1]} of the tokens"


def _percent(share: str) -> str:
    above, _, below = share.partition("/")
    return f"{int(above) / int(below):.1%}"


def described(one: PlannedRun) -> dict[str, Any]:
    """A planned run as JSON."""
    return asdict(one) | {"folder": str(one.folder), "name": one.name}
