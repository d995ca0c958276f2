"""The main path: a recipe becomes a pool, a manifest and mixed WebDataset shards.

    recipe ─► pin ─► gather ─► admit ─► decode ─► compare ─► lengths ─► plan ─► pack ─► report

Every step is a set of pure functions run over Ray (pipeline.stages); each leaves a receipt in the
pool, so a build that is killed at any moment and run again repeats nothing that was finished and
ends with the same `manifest_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixtures.plan import build_manifest
from mixtures.recipe import Recipe, load_recipe
from pipeline import comparing, leaks, ledger, media, stages, text_twins
from pipeline.admit import SourceUnit
from pipeline.admit import admit as stage_admit
from pipeline.cluster import Died, Workers, connect
from pipeline.fetch import resolve
from pipeline.fuse import Fuse
from pipeline.gather import Gathered, Pinned, gather, pin
from pipeline.pack import Sizes, pack
from pipeline.progress import Steps, steps
from pipeline.report_data import Matched, by_benchmark
from shards.errors import UserError
from shards.outcome import Books
from shards.pool import Pool, Receipt
from shards.receipts import MANY
from shards.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build published; `matches` counts those with evaluation data by benchmark."""

    manifest_id: str
    books: tuple[Books, ...]
    matches: tuple[Matched, ...]
    sizes: Sizes


def build(
    recipe_path: str, out: str, pool_url: str, address: str | None = None, *, uncaged: bool = False
) -> Built:
    """Run the recipe: everything a person can have got wrong is refused before any work."""
    recipe = load_recipe(Path(recipe_path))
    media.check_tools(uncaged=uncaged)
    if recipe.leaks:
        leaks.index_of(recipe.leaks.index)
    sources, exams = pin_sources(recipe, recipe_path)
    Store(out).check_writable()
    Store(pool_url).check_writable()
    pool = Pool(pool_url, recipe.profile)
    with connect(address) as workers, steps() as bars:
        bounds = {source.name: source.max_refused for source in recipe.sources}
        fuse = Fuse(bounds)
        gathered = gather(sources, "decode", pool, workers, bars, uncaged, fuse)
        fuse.check(recipe_path)
        admitted = admit(sources, gathered, pool, workers, bars.step("admit"))
        gathered = gather(exams, "held_out", pool, workers, bars, uncaged, Fuse({}))
        held_out = admit(exams, gathered, pool, workers, bars.step("held out"))
        benchmark = held_out_clips(pool, held_out)
        fuse = Fuse(bounds)
        decode("decode", admitted, pool, workers, bars, uncaged, fuse)
        decode("held_out", held_out, pool, workers, bars, uncaged, Fuse({}))
        fuse.check(recipe_path)
        pool.ledger.compact(MANY)
        compare(admitted, held_out, benchmark, pool, workers, bars)
        find_leaks(recipe, admitted, pool, workers, bars)
        find_twins(recipe, admitted, pool, workers, bars)
        count_lengths(recipe, admitted, pool, workers, bars)
        with bars.step("plan"):
            plan = build_manifest(recipe, pool, revisions(admitted | held_out))
            plan.write(out)
        with bars.step("pack") as step:
            sizes = pack(f"{out}/manifest.json", pool, f"{out}/shards", workers, step)
    manifest_id = plan.manifest.manifest_id
    matches = tuple(by_benchmark(plan.matches.to_pylist()))
    return Built(manifest_id=manifest_id, books=tuple(plan.books), matches=matches, sizes=sizes)


def pin_sources(recipe: Recipe, where: str) -> tuple[list[Pinned], list[Pinned]]:
    """(sources, held-out data) with every address pinned: what is not there is said before work."""
    resolve(recipe.text.tokenizer, f"{where}: text: tokenizer")
    return [pin(one, where) for one in recipe.sources], [pin(one, where) for one in recipe.held_out]


def admit(
    pinned: Sequence[Pinned], gathered: dict[str, Gathered], pool: Pool, workers: Workers, bar: Any
) -> dict[str, Receipt]:
    """Published records -> samples, the media they name, and refusals: one receipt a source."""
    units = [source_unit(one, gathered.get(one.source.name), pool) for one in pinned]
    with bar as step:
        step.begin(len(units))
        receipts = list(each(workers, stage_admit, units, step))
    by_name = {receipt.parameters["source"]: receipt for receipt in receipts}
    return {unit.name: by_name[unit.name] for unit in units}


def source_unit(pinned: Pinned, gathered: Gathered | None, pool: Pool) -> SourceUnit:
    source = pinned.source
    return SourceUnit(
        pool=pool.store.url,
        name=source.name,
        dataset=source.dataset,
        format=source.format,
        annotations=pinned.annotations,
        media=source.media,
        licence=source.licence,
        loose=pinned.loose,
        ids_repeat=pinned.ids_repeat,
        wanted=gathered.wanted if gathered else "",
        members=gathered.members if gathered else (),
    )


def decode(
    stage: str,
    admitted: dict[str, Receipt],
    pool: Pool,
    workers: Workers,
    bars: Steps,
    uncaged: bool,
    fuse: Fuse,
) -> None:
    """Media that no receipt of the stage names yet -> clips, fingerprints, refusals."""
    wanted = ledger.wanted_media(pool, list(admitted.values()))
    users = ledger.users(pool, admitted)

    def note(outcomes: dict[str, str]) -> None:
        for clip, code in outcomes.items():
            for source in users.get(clip, ()):
                fuse.note(source, code)

    # in the order in which they are decoded, so that a stretch of failures stays one
    order = [row["clip_id"] for unit in ledger.units(wanted) for row in unit]
    finished = ledger.Known(pool, stage).outcomes(order)
    note(finished)
    rows = [row for row in wanted if row["clip_id"] not in finished]
    units = (
        stages.MediaUnit(pool=pool.store.url, stage=stage, rows=unit, uncaged=uncaged)
        for unit in ledger.units(rows)
        if fuse.lets_pass({source for row in unit for source in users[row["clip_id"]]})
    )
    before = f"{len(wanted) - len(rows)} were done before" if len(wanted) > len(rows) else ""
    with bars.step(stage.replace("_", " ")) as step:
        step.begin(len(rows), before)
        died = []
        for result in workers.map(stages.decode, units):
            if isinstance(result, Died):
                died.append(result.unit)
            else:
                note(ledger.outcomes(pool, result))
                step.advance(result.counts["media"])
        for unit in alone(died):
            decode_alone(unit, workers)
            step.advance()


def alone(units: Sequence[stages.MediaUnit]) -> list[stages.MediaUnit]:
    """Each medium of these units as a unit of its own, to find the one that kills its worker."""
    return [replace(unit, rows=(row,)) for unit in units for row in unit.rows]


def decode_alone(unit: stages.MediaUnit, workers: Workers) -> None:
    """Decode one medium; what kills its worker three times is refused for good."""
    for result in workers.map(stages.decode, [unit]):
        if isinstance(result, Died):
            stages.refuse_media(unit, "MEDIA_KILLED_WORKER", unit.rows[0]["address"])


def compare(
    admitted: dict[str, Receipt],
    held_out: dict[str, Receipt],
    benchmark: dict[str, str],
    pool: Pool,
    workers: Workers,
    bars: Steps,
) -> None:
    """Fingerprints of the recipe's clips -> duplicate pairs and leak matches."""
    clips = tuple(ledger.clip_ids(pool, list(admitted.values())))
    unit = comparing.CompareUnit(
        pool=pool.store.url,
        sources=revisions(admitted),
        held_out=revisions(held_out),
        clip_ids=clips,
        benchmark=benchmark,
    )
    with bars.step("compare") as step:
        if comparing.finished(unit):
            return
        parts = comparing.parts(unit)
        step.begin(2 * len(parts) + 1)
        asked = list(each(workers, comparing.candidates, parts, step))
        told = [replace(part, found=comparing.tables(asked)) for part in parts]
        same = list(each(workers, comparing.same, told, step))
        facts = replace(unit, found=comparing.tables(same))
        list(each(workers, comparing.compare, [facts], step))


def held_out_clips(pool: Pool, held_out: dict[str, Receipt]) -> dict[str, str]:
    """Clip id -> name of its held-out set; UserError for a set without media."""
    found: dict[str, str] = {}
    for name, receipt in held_out.items():
        clips = ledger.clip_ids(pool, [receipt])
        if not clips:
            raise UserError(
                f"held_out: {name}: none of its {receipt.counts['samples']} samples has media, and "
                "only media are compared; make a leak index of its questions (`python -m pipeline "
                "leaks build`) and name that one as `leaks`"
            )
        found |= dict.fromkeys(clips, name)
    return found


def find_leaks(
    recipe: Recipe, admitted: dict[str, Receipt], pool: Pool, workers: Workers, bars: Steps
) -> None:
    """Matches of the recipe's clips and questions with its leak index, if it names one."""
    if recipe.leaks is None:
        return
    clips = ledger.clip_ids(pool, list(admitted.values()))
    index = leaks.index_of(recipe.leaks.index)
    with bars.step("leaks") as step:
        units = leaks.units(pool, index, clips, sample_tables(admitted))
        step.begin(len(units))
        list(each(workers, leaks.match, units, step))


def find_twins(
    recipe: Recipe, admitted: dict[str, Receipt], pool: Pool, workers: Workers, bars: Steps
) -> None:
    """Pairs of nearly equal conversations, if the recipe keeps one of such."""
    if recipe.near_text is None:
        return
    url, tables = pool.store.url, sample_tables(admitted)
    with bars.step("texts") as step:
        step.begin(len(tables))
        units = [text_twins.TextsUnit(pool=url, table=table) for table in tables]
        texts = list(each(workers, text_twins.sketch, units, step))
    with bars.step("twins") as step:
        parts = text_twins.parted(url, texts, revisions(admitted))
        step.begin(len(parts))
        list(each(workers, text_twins.twins, parts, step))


def sample_tables(admitted: dict[str, Receipt]) -> list[str]:
    """The tables of samples of these admissions."""
    return [name for one in admitted.values() for name in one.outputs["index/samples"]]


def count_lengths(
    recipe: Recipe, admitted: dict[str, Receipt], pool: Pool, workers: Workers, bars: Steps
) -> None:
    """Tokens per turn of every admitted sample, under the recipe's tokenizer and template."""
    tokenizer = resolve(recipe.text.tokenizer, "text.tokenizer").read_bytes()
    units = [
        stages.TextUnit(
            pool=pool.store.url,
            table=table,
            tokenizer=tokenizer,
            template=recipe.text.template,
        )
        for table in sample_tables(admitted)
    ]
    with bars.step("lengths") as step:
        step.begin(len(units))
        list(each(workers, stages.count_lengths, units, step))


def each(workers: Workers, function: Any, units: Sequence[Any], step: Any) -> Any:
    """The receipts of these units; a unit that keeps killing its worker ends the build."""
    for receipt in workers.map(function, units):
        if isinstance(receipt, Died):
            raise UserError(f"{receipt.unit}: its worker died three times; is memory short?")
        step.advance()
        yield receipt


def revisions(receipts: dict[str, Receipt]) -> dict[str, str]:
    """Source name -> content revision, as the receipts recorded it."""
    return {name: receipt.parameters["revision"] for name, receipt in receipts.items()}
