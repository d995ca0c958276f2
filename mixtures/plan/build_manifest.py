"""A recipe and a pool become a manifest: verdicts, quotas, order, packs, books.

Reads the pool, and puts into it only the columns it read (`mixtures.pool.columns`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixtures.manifest.blocks import pack_numbers
from mixtures.manifest.draws import Draws
from mixtures.manifest.epochs import Epochs
from mixtures.manifest.files import manifest_id_of, order_digest, write_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.npy_tables import NONE_SHOWN, content_id, npy_bytes
from mixtures.plan.quotas import resolve
from mixtures.pool.columns import Clips, Samples, passing, read_clips, read_samples, rows_at
from mixtures.pool.inputs import (
    Admitted,
    admitted_sources,
    comparison,
    leak_index,
    leaked_texts,
    named,
    read_tokenizer,
    refused_before,
    text_pairs,
    unread,
)
from mixtures.pool.sample_costs import Pricer
from mixtures.recipe.types import Recipe, Source
from mixtures.recipe.validate import check_view
from mixtures.selection.canonical_clips import show_canonical
from mixtures.selection.clip_cap import refuse_beyond
from mixtures.selection.exclusions import Exclusions, read_exclusions, refuse_excluded
from mixtures.selection.join_conversations import Joined, join_by_clip
from mixtures.selection.tables import match_table, refusal_table
from mixtures.selection.verdicts import (
    Verdicts,
    refuse_broken,
    refuse_duplicates,
    refuse_filtered,
    refuse_leaked_texts,
    refuse_leaks,
    refuse_licences,
    refuse_long,
    refuse_near_duplicates,
)
from mixtures.sums import group_sums
from mixtures.tokens.text import TextCodec
from mixtures.versions import ALGORITHMS, CANONICAL_ALGO, JOIN_ALGO, MANIFEST_VERSION, SCHEDULE_ALGO
from shards.errors import UserError
from shards.id_arrays import Ids
from shards.ids import sha256_hex
from shards.index import REFUSED
from shards.leak_index import LeakIndex
from shards.outcome import Books, top_codes, write_books
from shards.pool import Pool
from shards.store import Store

_AT_ONCE = 1 << 18
TOTALS = ("tokens", "patches", "frames", "clips", "millis", "nbytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a recipe over a pool comes to.

    `refusals` has the columns of REFUSED, `matches` (with evaluation data) those of MATCHES.
    """

    manifest: Manifest
    refusals: pa.Table
    matches: pa.Table
    books: list[Books]

    def write(self, folder: str) -> None:
        """Every refusal, match and the books, then the plan's tables, `manifest.json` last."""
        store = Store(folder)
        tables = {"refused.parquet": self.refusals, "leaks.parquet": self.matches}
        write_books(store, self.books, tables)
        write_manifest(self.manifest, folder)


def build_manifest(recipe: Recipe, pool: Pool, admitted: Mapping[str, str] | None = None) -> Plan:
    """Resolve a recipe over a pool; `admitted` is `pins` of `admitted_sources`.

    UserError where the pool lacks what the recipe needs, where nothing of a source is left, or
    where the books do not balance.
    """
    _check_profile(recipe, pool)
    tokenizer = read_tokenizer(recipe)
    codec = TextCodec(tokenizer, recipe.text.template, recipe.text.tokenizer)
    sources, held_out = admitted_sources(recipe, pool, admitted or {})
    clips, lengths = read_clips(pool), pool.receipts("lengths")
    samples = [read_samples(pool, s.name, s.receipts, lengths, codec, clips) for s in sources]
    index = leak_index(recipe)
    exclusions = read_exclusions(Path(recipe.exclude)) if recipe.exclude else None
    chosen = _choose(recipe, pool, codec, sources, held_out, clips, samples, index, exclusions)
    verdicts = chosen.verdicts
    joined = _join(recipe, verdicts, chosen.rows, clips.ids)
    tables = [each.rows for each in joined] or chosen.rows
    draft = _draft(recipe, codec, sources, chosen, joined, tokenizer, index, exclusions)
    manifest = _freeze(draft)
    refused = refused_before(pool, sources)
    counts = zip(manifest.schedule.visits(manifest.length).tolist(), map(len, tables), strict=True)
    books = [_books(pool, *each) for each in zip(sources, verdicts, refused, counts, strict=True)]
    refused += [_refusals(pool, *each) for each in zip(sources, verdicts, strict=True)]
    return Plan(
        manifest=manifest,
        refusals=pa.concat_tables(refused),
        matches=pa.concat_tables(chosen.matches),
        books=books,
    )


def _check_profile(recipe: Recipe, pool: Pool) -> None:
    check_view(recipe.frames, pool.profile, str(recipe.path))
    if recipe.profile != pool.profile:
        raise UserError(
            f"{recipe.path}: profile: the pool {pool.store.url} keeps {pool.profile.to_json()}, "
            f"the recipe wants {recipe.profile.to_json()}; give another --pool, or mend the recipe"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """Per source: who stays and why not, the rows of those that stay, what matches evaluation;
    and which clips are shown in place of others."""

    verdicts: list[Verdicts]
    rows: list[NDArray[np.void]]
    matches: list[pa.Table]
    copies: NDArray[np.void]


def _choose(
    recipe: Recipe,
    pool: Pool,
    codec: TextCodec,
    sources: Sequence[Admitted],
    held_out: Mapping[str, str],
    clips: Clips,
    samples: Sequence[Samples],
    index: LeakIndex | None,
    exclusions: Exclusions | None,
) -> _Chosen:
    used = np.zeros(len(clips.ids), bool)
    for own_samples in samples:
        used[own_samples.clips] = True
    found = comparison(recipe, pool, sources, held_out, clips, used, index)
    leaked = [leaked_texts(recipe, pool, source, index) for source in sources]
    verdicts = [Verdicts(own_samples) for own_samples in samples]
    for source, own, admission, asked in zip(
        recipe.sources, verdicts, sources, leaked, strict=True
    ):
        refuse_broken(own, clips)
        if exclusions is not None:
            refuse_excluded(own, pool, admission.receipts, clips, exclusions)
        refuse_licences(own, recipe.allow_licences)
        for rule in source.filters:
            passes = passing(pool, admission.receipts, own.samples, clips, rule)
            refuse_filtered(own, rule, passes)
        refuse_leaks(own, clips, found)
        if recipe.leaks and recipe.leaks.text == "refuse":
            refuse_leaked_texts(own, asked)
    copies = NONE_SHOWN
    if recipe.canonical_clips:
        said = [partial(rows_at, pool, admission.receipts) for admission in sources]
        copies = show_canonical(verdicts, clips, found.copies, said)
    pricer = Pricer(recipe, codec, clips, pool)
    rows = [pricer.rows(own.samples) for own in verdicts]
    for own, each in zip(verdicts, rows, strict=True):
        refuse_long(own, each, recipe.pack)
    if recipe.duplicates == "refuse":
        refuse_duplicates(verdicts, found)
    refuse_near_duplicates(verdicts, found, text_pairs(recipe, pool, sources))
    if recipe.max_samples_per_clip is not None:
        refuse_beyond(verdicts, recipe.max_samples_per_clip, clips)
    _check_left(recipe, pool, sources, verdicts)
    return _Chosen(
        verdicts=verdicts,
        rows=[each[own.stays] for each, own in zip(rows, verdicts, strict=True)],
        matches=[
            match_table(own, found, asked) for own, asked in zip(verdicts, leaked, strict=True)
        ],
        copies=copies,
    )


class NothingLeft(UserError):
    """No sample of some sources is left; `books` and `refusals` (REFUSED) are those of all."""

    def __init__(self, told: str, books: Sequence[Books], refusals: pa.Table) -> None:
        super().__init__(told)
        self.books, self.refusals = books, refusals


def _check_left(
    recipe: Recipe, pool: Pool, sources: Sequence[Admitted], verdicts: Sequence[Verdicts]
) -> None:
    """Raise NothingLeft, which names all sources of which nothing is left, and why."""
    if all(own.stays.any() for own in verdicts):
        return
    refused, books = refused_before(pool, sources), []
    for admission, own, before in zip(sources, verdicts, refused, strict=True):
        books.append(_books(pool, admission, own, before, (0, int(own.stays.sum()))))
    refused += [_refusals(pool, *each) for each in zip(sources, verdicts, strict=True)]
    refusals = pa.concat_tables(refused)
    told = (
        f"{recipe.path}: nothing of the source {admission.name!r} is left "
        f"({', '.join(map(str, top_codes(refusals, admission.name))) or 'it has no record'}); "
        "remove it, or mend what refuses it"
        for admission, own in zip(sources, verdicts, strict=True)
        if not own.stays.any()
    )
    raise NothingLeft("\n".join(told), books, refusals)


def _join(
    recipe: Recipe, verdicts: Sequence[Verdicts], tables: list[NDArray[np.void]], clip_ids: Ids
) -> list[Joined]:
    """Per source its samples, joined; empty where the recipe does not say so."""
    rule = recipe.join_by_clip
    return [
        join_by_clip(own.samples, np.flatnonzero(own.stays), rows, rule, clip_ids)
        for own, rows in zip(verdicts, tables, strict=True)
        if rule is not None
    ]


def _draft(
    recipe: Recipe,
    codec: TextCodec,
    sources: Sequence[Admitted],
    chosen: _Chosen,
    joined: list[Joined],
    tokenizer: bytes,
    index: LeakIndex | None,
    exclusions: Exclusions | None,
) -> Manifest:
    """The manifest but for what only its order knows."""
    tables = [each.rows for each in joined] or chosen.rows
    joined_by = [each.joined_by for each in joined]
    ids = joined_by or [table["key"] for table in tables]
    epochs = Epochs(recipe.seed, [source.name for source in recipe.sources], ids)
    stages, source_at = resolve(recipe, tables, epochs)
    value = _rules(recipe, codec)
    if index and recipe.leaks:
        value["recipe"]["leaks"] = {"index": index.index_id, "text": recipe.leaks.text}
    if exclusions is not None:
        value["recipe"]["exclude"] = exclusions.to_json()
    value["schedule"] = {
        "algo": SCHEDULE_ALGO,
        "table": sha256_hex(npy_bytes(source_at)),
        "stages": [{"start": start, "shares": list(shares)} for start, shares in stages],
    }
    value["length"] = len(source_at)
    value["sources"] = [
        _source(recipe, *each)
        for each in zip(recipe.sources, sources, chosen.verdicts, tables, strict=True)
    ]
    for source, verdict, own in zip(value["sources"], chosen.verdicts, joined, strict=False):
        source["kept"]["conversations"] = int(verdict.stays.sum())
        source["kept"]["members"] = sha256_hex(npy_bytes(own.members))
        source["kept"]["joined_by"] = sha256_hex(npy_bytes(own.joined_by))
    if recipe.canonical_clips:
        table = {"clips": len(chosen.copies), "table": sha256_hex(npy_bytes(chosen.copies))}
        value["canonical"] = {"algo": CANONICAL_ALGO} | table
    return Manifest(
        value=value,
        tables=tables,
        source_at=source_at,
        packs_per_window=np.empty(0, np.uint32),
        tokenizer=tokenizer,
        members=[each.members for each in joined],
        joined_by=joined_by,
        copies=chosen.copies,
    )


def _rules(recipe: Recipe, codec: TextCodec) -> dict[str, Any]:
    rules = {part: dict(known) for part, known in ALGORITHMS.items() if part != "schedule"}
    rules["pack"] |= asdict(recipe.pack)
    rules["layout"] |= asdict(recipe.layout)
    rules["text"] |= {
        "tokenizer_sha256": codec.tokenizer_sha256,
        "template": recipe.text.template,
    }
    if recipe.join_by_clip is not None:
        rules["join"] = {"algo": JOIN_ALGO} | asdict(recipe.join_by_clip)
    return rules | {
        "manifest_version": MANIFEST_VERSION,
        "tool": {"name": "slowfast-mix", "version": _tool_version()},
        "recipe": recipe.to_json(),
        "seed": recipe.seed,
        "frames": asdict(recipe.frames),
        "profile": recipe.profile.to_json(),
    }


def _tool_version() -> str:
    try:
        return version("slowfast-mix")
    except PackageNotFoundError:
        return "source tree"


def _source(
    recipe: Recipe, source: Source, admitted: Admitted, verdicts: Verdicts, table: NDArray[np.void]
) -> dict[str, Any]:
    return {
        "name": source.name,
        "dataset": source.dataset,
        "licence": source.licence,
        "revision": admitted.revision,
        "asked": {recipe.ratio: _asked(source)},
        "kept": {
            "samples": len(table),
            "tokens": int(table["tokens"].sum(dtype=np.int64)),
            "table": sha256_hex(npy_bytes(table)),
        },
        "content_id": content_id(table),
        "admitted": admitted.samples - admitted.samples_refused,
        "not_chosen": verdicts.counts(),
    }


def _asked(source: Source) -> str:
    given = source.weight or source.repeat
    return str(source.budget) if given is None else f"{given.numerator}/{given.denominator}"


def _freeze(draft: Manifest) -> Manifest:
    """The manifest with what its order says: packs, what is drawn of each source, the digest."""
    packs, drawn = _walk(draft)
    whole = np.array(packs, np.uint32)
    value = dict(draft.value)
    value["packs"] = int(whole.sum(dtype=np.int64))
    value["packs_per_window"] = sha256_hex(npy_bytes(whole))
    counts = drawn.tolist()
    value["sources"] = [
        source | {"drawn": dict(zip(("samples", *TOTALS), own, strict=True))}
        for source, own in zip(value["sources"], counts, strict=True)
    ]
    totals = dict(zip(("samples", *TOTALS), drawn.sum(0).tolist(), strict=True))
    value["totals"] = totals | {"seconds": totals["millis"] // 1000}
    value["order_digest"] = order_digest(draft)
    value["manifest_id"] = manifest_id_of(value)
    return replace(draft, value=value, packs_per_window=whole)


def _walk(draft: Manifest) -> tuple[list[int], NDArray[np.int64]]:
    """Packs of each window inside `length` (an endless order: whole windows), and sums of TOTALS.

    The sums are int64 [sources, 1 + TOTALS], samples first.
    """
    draws, rule = Draws(draft), draft.pack
    step = max(_AT_ONCE // rule.window, 1) * rule.window
    packs: list[int] = []
    drawn = np.zeros((len(draft.tables), 1 + len(TOTALS)), np.int64)
    for start in range(0, draft.length, step):
        draw = draws.draw(start, min(start + step, draft.length))
        records = draws.records(draw)
        whole = len(records) if draft.is_finite else len(records) // rule.window * rule.window
        packs += [int(numbers.max()) + 1 for numbers in pack_numbers(records[:whole], rule)]
        drawn[:, 0] += np.bincount(draw.source, minlength=len(drawn))
        for column, name in enumerate(TOTALS, 1):
            drawn[:, column] += group_sums(records[name], draw.source, len(drawn))
    return packs, drawn


def _books(
    pool: Pool, admitted: Admitted, verdicts: Verdicts, refused: pa.Table, counts: tuple[int, int]
) -> Books:
    """The accounts of a source, checked against what was written down; UserError if they differ.

    `counts` are its visits, and its samples after joining.
    """
    chosen = int(verdicts.stays.sum())
    visits, samples = counts
    books = Books(
        source=admitted.name,
        records=admitted.records,
        records_refused=admitted.records_refused,
        samples=admitted.samples,
        samples_refused=admitted.samples_refused + verdicts.broken,
        not_chosen=len(verdicts.stays) - verdicts.broken - chosen,
        chosen=chosen,
        joined=chosen - samples,
        drawn=min(visits, samples),
        repeats=max(visits - samples, 0),
        unread=unread(pool, admitted),
        names=named(pool, admitted),
    )
    # Admission writes refused records and refused samples into one table: its sum is checked.
    books.check(
        len(refused) - admitted.samples_refused,
        admitted.samples_refused + verdicts.broken,
        sum(verdicts.counts().values()),
    )
    return books


def _refusals(pool: Pool, admitted: Admitted, verdicts: Verdicts) -> pa.Table:
    if not verdicts.refusals:
        return REFUSED.empty_table()
    places = verdicts.places
    origins = rows_at(pool, admitted.receipts, verdicts.samples, places, "record dataset revision")
    return refusal_table(verdicts, origins)
