"""What the report shows of one build: read from its folder and its pool, and counted.

Everything here is numbers and rows; `pipeline.report.page` turns them into a page.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixtures.manifest.contents import Choices
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.selection.leak_counts import MatchRow
from shards.errors import UserError
from shards.extents import ByteRange, Extents, pair
from shards.index import CLIPS, LEAKS, PAIRS, REFERENCES, SAMPLES
from shards.outcome import Books, read_books
from shards.pool import Pool, Receipt
from shards.reader import clip_of
from shards.receipts import latest
from shards.sample import Clip, split_frames
from shards.store import Store
from shards.verify import read_receipt

WINDOW = 100
FILES = "manifest.json books.json refused.parquet leaks.parquet".split()

Name = tuple[str, str]
"""A sample of a build: (source, key)."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """One build's files, and of its pool the rows of its sources.

    `source_at[n]` is the index of the source at position n, `drawn` how often a sample stands
    there; a sample's row holds, as `at`, the index of its conversation in `turns`.
    """

    out: str
    manifest: Manifest
    books: tuple[Books, ...]
    refused: list[dict[str, Any]]
    source_at: NDArray[np.int64]
    drawn: Counter[Name]
    shards: int
    pool: Pool
    samples: dict[Name, dict[str, Any]]
    turns: pa.ChunkedArray
    clips: dict[str, dict[str, Any]]
    pairs: list[dict[str, Any]]
    copies: dict[str, tuple[str, ...]]
    leaks: list[dict[str, Any]]
    matches: list[MatchRow]
    tools: tuple[str, ...]

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.manifest.contents.recipe.name

    @cached_property
    def chosen(self) -> list[Name]:
        """Every conversation that the plan may draw, source by source."""
        tables = zip(self.manifest.names, self.manifest.tables, strict=True)
        samples = ((name, key.tobytes().hex()) for name, table in tables for key in table["key"])
        # a joined sample counts as the conversations that it was joined from
        return [
            conversation
            for sample in samples
            for conversation in conversations(self.manifest, sample)
        ]

    @cached_property
    def chosen_clips(self) -> list[dict[str, Any]]:
        """The clips that the chosen samples show, each once."""
        shown = (self.manifest.shown(self.samples[name]["clip_ids"]) for name in self.chosen)
        names = {clip_id for clip_ids in shown for clip_id in clip_ids}
        return [self.clips[clip_id] for clip_id in sorted(names)]

    @cached_property
    # refused while planning or decoding: refusals of admission have no key
    def verdicts(self) -> dict[Name, str]:
        """Code of each admitted sample that was refused."""
        return {
            (row["source"], row["key"]): row["code"]
            for row in self.refused
            if row["stage"] in ("decode", "plan")
        }

    @cached_property
    def users(self) -> dict[str, list[Name]]:
        """The samples that name a clip."""
        names = defaultdict(list)
        for name, row in self.samples.items():
            for clip_id in dict.fromkeys(row["clip_ids"]):
                names[clip_id].append(name)
        return names


def conversations(manifest: Manifest, sample: Name) -> list[Name]:
    """What of the pool a sample is made of: itself, if it is not joined."""
    return [(sample[0], key) for key in manifest.members_of(*sample)]


def load_build(out: str, pool_url: str) -> Build:
    """Read a folder written by `build`; UserError names the file that is missing or astray."""
    store = Store(out)
    # a folder half built is told before the pool is read
    manifest = _published(store)
    books, tables = read_books(store)
    drawn = Draws(manifest).samples(0, manifest.length)
    number = {name: i for i, name in enumerate(manifest.names)}
    pool = Pool(pool_url)
    compared = _compared(pool, manifest.revisions)
    admitted = pool.table(pool.admitted(manifest.provenance), "index/samples", SAMPLES)
    # conversations stay in their column: only the few that are shown are parsed
    samples = admitted.drop_columns(["turns"]).to_pylist()
    decoded = pool.receipts("decode")
    clip_ids = {clip_id for row in samples for clip_id in row["clip_ids"]}
    clips = pool.table(decoded, "index/clips", CLIPS).to_pylist()
    references = pool.table(compared, "references", REFERENCES).to_pylist()
    copies = shown_copies(references, clip_ids)
    build = Build(
        out=out,
        manifest=manifest,
        books=books,
        refused=tables["refused.parquet"].to_pylist(),
        source_at=np.array([number[sample.source] for sample in drawn], np.int64),
        # how often each conversation stands in the draw order
        drawn=Counter(
            conversation
            for sample in drawn
            for conversation in conversations(manifest, (sample.source, sample.key))
        ),
        shards=_shards(store, manifest),
        pool=pool,
        samples={(row["source"], row["key"]): row | {"at": n} for n, row in enumerate(samples)},
        turns=admitted["turns"],
        clips={row["clip_id"]: row for row in clips if row["clip_id"] in clip_ids},
        pairs=shown_pairs(pool.table(compared, "clusters", PAIRS).to_pylist(), copies, clip_ids),
        copies=copies,
        leaks=_facts(_leaks(pool, compared, manifest.contents.recipe), {"clip_id": clip_ids}),
        matches=tables["leaks.parquet"].to_pylist(),
        tools=tuple(
            sorted({decoding.tools for decoding in decoded if clip_ids & set(decoding.inputs)})
        ),
    )
    _check_pool(build)
    return build


def _published(store: Store) -> Manifest:
    """The manifest of a folder in which a build ended."""
    for name in FILES:
        if not store.exists(name):
            remedy = f"run `python -m pipeline build RECIPE --out {store.url}` first"
            raise UserError(f"{store.path(name)}: not there; {remedy}")
    return load_manifest(f"{store.url.rstrip('/')}/manifest.json")


def _shards(store: Store, manifest: Manifest) -> int:
    """How many shards there are, none after a build without; UserError if they are of another."""
    if not store.exists("shards/receipt.json"):
        return 0
    receipt = read_receipt(Store(f"{store.url.rstrip('/')}/shards"))
    # shards may be of an earlier manifest where a build was killed between the two
    if receipt["manifest_id"] != manifest.manifest_id:
        where = store.path("shards/receipt.json")
        raise UserError(f"{where}: shards of another manifest; run build again, or remove them")
    return len(receipt["shards"])


def _check_pool(build: Build) -> None:
    """Raise UserError unless the pool holds all that the manifest may draw."""
    for name in build.chosen:
        row = build.samples.get(name)
        if row is None or not build.clips.keys() >= set(row["clip_ids"]):
            url = build.pool.store.url
            source, key = name
            raise UserError(f"{url}: lacks sample {key} of {source!r}; is --pool the right one?")


def _compared(pool: Pool, revisions: Mapping[str, str]) -> list[Receipt]:
    """The comparisons that covered all of these sources."""
    receipts = [
        receipt
        for receipt in pool.receipts("compare")
        # a comparison over more sources holds the pairs of these too
        if revisions.items() <= receipt.parameters["sources"].items()
    ]
    if not receipts:
        raise UserError(f"{pool.store.url}: never compared these sources; is --pool the right one?")
    receipts = latest(receipts)
    if any("references" not in receipt.outputs for receipt in receipts):
        raise UserError(f"{pool.store.url}: compared by an older version; build into it again")
    return receipts


def shown_copies(
    references: Sequence[Mapping[str, Any]], clip_ids: AbstractSet[str]
) -> dict[str, tuple[str, ...]]:
    """Reference -> the clips shown that are its copies, itself among them where it is shown."""
    copies: dict[str, set[str]] = defaultdict(set)
    for row in references:
        copies[row["reference"]] |= {row["clip_id"], row["reference"]} & clip_ids
    return {name: tuple(sorted(clips)) for name, clips in sorted(copies.items()) if clips}


def shown_pairs(
    facts: Sequence[Mapping[str, Any]],
    copies: Mapping[str, tuple[str, ...]],
    clip_ids: AbstractSet[str],
) -> list[dict[str, Any]]:
    """Pairs of the clips shown, as PAIRS: the least of a reference's copies stands for all."""
    stands_for = {name: name for name in clip_ids}
    stands_for |= {name: clips[0] for name, clips in copies.items()}
    pairs = {}
    for row in facts:
        ends = sorted({stands_for.get(row[name], "") for name in ("clip_a", "clip_b")} - {""})
        if len(ends) == 2:
            pairs[*ends, row["relation"]] = {**row, "clip_a": ends[0], "clip_b": ends[1]}
    for least, *others in copies.values():
        for other in others:
            values = (least, other, "near", 0, "same")
            pairs[values[:3]] = dict(zip(PAIRS.names, values, strict=True))
    return [pairs[name] for name in sorted(pairs)]


def _leaks(pool: Pool, compared: Sequence[Receipt], recipe: Choices) -> pa.Table:
    """Matches of clips with the recipe's held-out sets, and with its leak index."""
    held_out = pa.array(recipe.held_out, pa.string())
    matched_clips = pool.table(compared, "leaks", LEAKS)
    index = None if recipe.leaks is None else recipe.leaks.index
    by_table = defaultdict(list)
    # a table that was compared with the index again, by a later version, counts once
    for receipt in pool.receipts("leak_media"):
        if receipt.parameters["index"] == index:
            by_table[receipt.inputs].append(receipt)
    matched = [receipt for receipts in by_table.values() for receipt in latest(receipts)]
    matched_clips = matched_clips.filter(pc.is_in(matched_clips["benchmark"], value_set=held_out))
    return pa.concat_tables([matched_clips, pool.table(matched, "leaks", LEAKS)])


def _facts(table: pa.Table, values_of: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """The rows whose columns hold these values, each once, in the order of their values."""
    for column, values in values_of.items():
        table = table.filter(pc.is_in(table[column], pa.array(sorted(values), pa.string())))
    # several comparisons hold the same pair
    by_value = {tuple(row.values()): row for row in table.to_pylist()}
    return [by_value[value] for value in sorted(by_value)]


def frames_of(build: Build, row: Mapping[str, Any]) -> tuple[Clip, list[bytes]]:
    """A clip of the pool's index and its JPEGs, checksum verified."""
    where = f"clips/{row['part']}"
    clip = clip_of(dict(row))
    byte_range = ByteRange(where, row["offset"], row["extent"], row["crc32"])
    # the member's bytes are checked against the crc32 of the index
    _, payload = pair(Extents(build.pool.store).read(byte_range), where)
    return clip, [bytes(frame) for frame in split_frames([clip], payload, where)[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One source's part of the draw order; deviations are in samples, exact."""

    source: str
    requested: Fraction
    count: int
    realised: Fraction
    prefix: Fraction
    window: Fraction


def shares(
    names: Sequence[str],
    stages: Sequence[tuple[int, Sequence[int]]],
    source_at: NDArray[np.int64],
) -> list[Share]:
    """Requested against realised; the furthest any prefix and any window strays from its share.

    `at[n]` is the index of the source at position n; `stages` are (first position, integer
    shares). Ratios hold in each stage: a prefix begins with its stage, a window of WINDOW positions
    (or all) lies in one.
    """
    ends = [*(start for start, _ in stages[1:]), len(source_at)]
    # a schedule of ratios: each stage is held against its own shares
    pieces = [
        (source_at[start:end], parts) for (start, parts), end in zip(stages, ends, strict=True)
    ]
    rows = []
    total = max(1, len(source_at))
    for i, name in enumerate(names):
        wanted = sum(len(piece) * Fraction(parts[i], sum(parts)) for piece, parts in pieces)
        astray = [_astray(piece == i, parts[i], sum(parts)) for piece, parts in pieces]
        count = int(np.count_nonzero(source_at == i))
        rows.append(
            Share(
                source=name,
                requested=Fraction(wanted, total),
                count=count,
                realised=Fraction(count, total),
                prefix=max(prefix for prefix, _ in astray),
                window=max(window for _, window in astray),
            )
        )
    return rows


def _astray(shown: NDArray[np.bool_], share: int, whole: int) -> tuple[Fraction, Fraction]:
    """How far any prefix, and any window, of these positions strays from share / whole."""
    size = min(WINDOW, len(shown))
    # prefix sums: counts[n] of this source among the first n positions
    counts = np.concatenate([[0], np.cumsum(shown)])
    # deviation from n * share / whole, scaled by `whole` so that it stays an integer
    ahead = counts * whole - np.arange(len(counts), dtype=np.int64) * share
    # a window's deviation is the difference of two prefixes' (both scaled)
    moved = ahead[size:] - ahead[: len(ahead) - size]
    return Fraction(int(abs(ahead).max()), whole), Fraction(int(abs(moved).max()), whole)


def windowed(source_at: NDArray[np.int64], num_sources: int, most: int = 160) -> list[list[float]]:
    """Share of each source in at most `most` windows of equal size, WINDOW positions at least."""
    # ceiling division: at most `most` columns in the chart
    size = max(WINDOW, -(-len(source_at) // most))
    pieces = [source_at[start : start + size] for start in range(0, len(source_at), size)]
    # a short rest would look noisy: it joins the window before it
    if len(pieces) > 1 and len(pieces[-1]) < WINDOW:
        pieces[-2:] = [np.concatenate(pieces[-2:])]
    counts = [np.bincount(piece, minlength=num_sources) for piece in pieces]
    return [(count / count.sum()).tolist() for count in counts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Refusals of one source with one stage and code; `rows` are the first of them."""

    stage: str
    code: str
    count: int
    rows: tuple[dict[str, Any], ...]


def reasons(refusals: Sequence[dict[str, Any]], source: str, most: int) -> list[Reason]:
    """Why this source's records and samples were refused, most frequent first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in refusals:
        if row["source"] == source:
            groups[row["stage"], row["code"]].append(row)
    found = [
        Reason(stage=stage, code=code, count=len(rows), rows=tuple(rows[:most]))
        for (stage, code), rows in groups.items()
    ]
    return sorted(found, key=lambda reason: (-reason.count, reason.stage, reason.code))
