"""What a recipe can choose from: its sources' samples and every fact the pool holds about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.layout import LayoutConfig, Look, frames_used, layout_of, look_at
from mixtures.recipe import HeldOut, Recipe, Source
from mixtures.text import TextCodec
from shards.errors import UserError
from shards.index import CLIPS, LEAKS, LENGTHS, PAIRS, REFUSED, SAMPLES
from shards.outcome import Refused
from shards.pool import Pool, Receipt
from shards.reader import clip_of
from shards.sample import Clip

REMEDY = "run `python -m pipeline build` with this recipe and pool first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An admitted sample. `source` is its source's place in the recipe; `tokens` of its text.

    `mentions` are the clip indices in the order the turns name them.
    """

    source: int
    name: str
    key: str
    record: str
    licence: str
    origin: str
    turns_digest: str
    clip_ids: tuple[str, ...]
    mentions: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the admission of one source counted, and the revision it is of."""

    name: str
    dataset: str
    revision: str
    records: int
    records_refused: int
    samples: int
    samples_refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the pool knows of a recipe's sources, in an order that hangs on content only.

    `broken` maps a refused clip to (code, detail); `leaks` a clip to (benchmark, held-out clip).
    """

    candidates: list[Candidate]
    accounts: list[Account]
    refused: list[Refused]
    clips: dict[str, Clip]
    broken: dict[str, tuple[str, str]]
    pairs: list[tuple[str, str]]
    leaks: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a sample takes: tokens in all, patches and frames through the tower, clips."""

    tokens: int
    patches: int
    frames: int
    clips: int


def read_tokenizer(recipe: Recipe) -> bytes:
    """The bytes of the tokenizer file that the recipe names."""
    try:
        return Path(recipe.text.tokenizer).read_bytes()
    except OSError as error:
        raise UserError(
            f"{recipe.text.tokenizer}: {error.strerror}; {recipe.path}: text: tokenizer: must name "
            "a tokenizer.json"
        ) from error


def read_facts(
    recipe: Recipe, pool: Pool, codec: TextCodec, admitted: Mapping[str, str] | None
) -> Facts:
    """Everything of the recipe's sources at the admitted (or only) revisions.

    UserError where the pool lacks a source, its lengths, its clips or the comparison of its clips.
    """
    receipts = pool.receipts("admit")
    known = admitted or {}
    chosen = {source.name: _admission(receipts, source, known, recipe) for source in recipe.sources}
    names = list(chosen)
    candidates, refused = [], []
    for number, name in enumerate(names):
        candidates += _candidates(pool, chosen[name], number, codec)
        refused += _refused(pool, chosen[name])
    candidates.sort(key=lambda one: (one.source, one.key, one.record))
    wanted = sorted({clip for one in candidates for clip in one.clip_ids})
    clips, broken = _clips(pool, wanted)
    revisions = {name: _revision(chosen[name]) for name in names}
    held_out = {
        each.name: _revision(_admission(receipts, each, known, recipe)) for each in recipe.held_out
    }
    pairs, leaks = _comparisons(pool, revisions, held_out, wanted)
    return Facts(
        candidates=candidates,
        accounts=[_account(chosen[name], name) for name in names],
        refused=refused,
        clips=clips,
        broken=broken,
        pairs=pairs,
        leaks=leaks,
    )


def _revision(receipts: list[Receipt]) -> str:
    return str(receipts[0].parameters["revision"])


def _admission(
    receipts: list[Receipt], source: Source | HeldOut, known: Mapping[str, str], recipe: Recipe
) -> list[Receipt]:
    """The receipts that admitted one source at one revision."""
    name, pin = source.name, known.get(source.name, source.revision)
    found = [receipt for receipt in receipts if receipt.parameters["source"] == name]
    found = [one for one in found if not pin or one.parameters["revision"].startswith(pin)]
    if not found:
        at = f" at revision {pin}" if pin else ""
        raise UserError(f"{recipe.path}: the pool holds no source {name!r}{at}; {REMEDY}")
    revisions = sorted({one.parameters["revision"] for one in found})
    if len(revisions) > 1:
        raise UserError(
            f"{recipe.path}: the pool holds {len(revisions)} revisions of {name!r}; "
            f"give it one as `revision`: {', '.join(revisions)}"
        )
    if len({(one.version, one.parameters.get("format")) for one in found}) > 1:
        raise UserError(
            f"{recipe.path}: {name!r} was admitted under several versions of its adapter; "
            "build another pool"
        )
    return found


def _account(receipts: list[Receipt], name: str) -> Account:
    counts = {
        what: sum(receipt.counts[what] for receipt in receipts)
        for what in ("records", "records_refused", "samples", "samples_refused")
    }
    parameters = receipts[0].parameters
    return Account(
        name=name,
        dataset=str(parameters.get("dataset", name)),
        revision=str(parameters["revision"]),
        **counts,
    )


def _candidates(
    pool: Pool, receipts: list[Receipt], source: int, codec: TextCodec
) -> list[Candidate]:
    rows = pool.table(receipts, "index/samples", SAMPLES).to_pylist()
    lengths = _lengths(pool, codec, receipts[0].parameters["source"])
    found = []
    for row in rows:
        if row["key"] not in lengths:
            raise UserError(
                f"{pool.store.url}: sample {row['key']} of {row['source']!r} is not counted under "
                f"text profile {codec.profile_id}; {REMEDY}"
            )
        turns = json.loads(row["turns"])
        found.append(
            Candidate(
                source=source,
                name=row["source"],
                key=row["key"],
                record=row["record"],
                licence=row["licence"],
                origin=f"{row['dataset']}@{row['revision']}",
                turns_digest=row["turns_digest"],
                clip_ids=tuple(row["clip_ids"]),
                mentions=tuple(place[0] for turn in turns for place in turn["media"]),
                tokens=lengths[row["key"]],
            )
        )
    return found


def _lengths(pool: Pool, codec: TextCodec, source: str) -> dict[str, int]:
    receipts = [
        receipt
        for receipt in pool.receipts("lengths")
        if receipt.parameters["text_profile"] == codec.profile_id
    ]
    table = pool.table(receipts, f"lengths/{codec.profile_id}", LENGTHS)
    table = table.filter(pc.equal(table["source"], source))
    keys, tokens = table["key"].to_pylist(), table["tokens"].to_pylist()
    return {key: sum(each) for key, each in zip(keys, tokens, strict=True)}


def _refused(pool: Pool, receipts: list[Receipt]) -> list[Refused]:
    rows = pool.table(receipts, "refused", REFUSED).to_pylist()
    return [Refused(**row) for row in rows]


def _only(table: pa.Table, column: str, values: Iterable[str]) -> pa.Table:
    wanted = pa.array(list(values), pa.string())
    return table.filter(pc.is_in(table[column], value_set=wanted))


def _clips(pool: Pool, wanted: list[str]) -> tuple[dict[str, Clip], dict[str, tuple[str, str]]]:
    receipts = pool.receipts("decode")
    rows = _only(pool.table(receipts, "index/clips", CLIPS), "clip_id", wanted).to_pylist()
    refusals = _only(pool.table(receipts, "refused", REFUSED), "key", wanted).to_pylist()
    clips = {row["clip_id"]: clip_of(row) for row in rows}
    broken = {row["key"]: (row["code"], row["detail"]) for row in refusals}
    missing = [clip for clip in wanted if clip not in clips and clip not in broken]
    if missing:
        raise UserError(
            f"{pool.store.url}: {len(missing)} clips are not decoded (first {missing[0]}); {REMEDY}"
        )
    return clips, {clip: why for clip, why in broken.items() if clip not in clips}


def _comparisons(
    pool: Pool, sources: dict[str, str], held_out: dict[str, str], wanted: list[str]
) -> tuple[list[tuple[str, str]], dict[str, tuple[str, str]]]:
    """Duplicate pairs and leaks of these clips, from comparisons that covered all of them."""
    receipts = [
        receipt
        for receipt in pool.receipts("compare")
        if sources.items() <= receipt.parameters["sources"].items()
        and held_out.items() <= receipt.parameters["held_out"].items()
    ]
    if not receipts:
        raise UserError(
            f"{pool.store.url}: the clips of {sorted(sources)} were never compared with each "
            f"other and with {sorted(held_out)}; {REMEDY}"
        )
    pairs = _only(pool.table(receipts, "clusters", PAIRS), "clip_a", wanted)
    pairs = _only(pairs, "clip_b", wanted)
    leaks = _only(pool.table(receipts, "leaks", LEAKS), "clip_id", wanted)
    leaks = _only(leaks, "benchmark", held_out)
    ends = zip(pairs["clip_a"].to_pylist(), pairs["clip_b"].to_pylist(), strict=True)
    places: dict[str, tuple[str, str]] = {}
    for row in leaks.to_pylist():
        place = (row["benchmark"], row["held_out"])
        places[row["clip_id"]] = min(places.get(row["clip_id"], place), place)
    return sorted(set(ends)), places


def price(
    candidate: Candidate, clips: Mapping[str, Clip], recipe: Recipe, codec: TextCodec
) -> Cost:
    """What a sample costs under the recipe's view, layout and text rule; all clips decoded."""
    own = [clips[clip_id] for clip_id in candidate.clip_ids]
    images = sum(clip.kind == "image" for clip in own)
    tokens, patches, frames = [], 0, 0
    for clip in own:
        look = look_at(clip, recipe.frames, recipe.layout, images)
        if recipe.layout.timestamps == "none":  # times do not count: one answer for many clips
            shown = len(look.frames)
            look = replace(look, frames=tuple(range(shown)), seconds=(Fraction(0),) * shown)
        count, used = _clip_cost(look, clip.kind, recipe.layout, codec, images)
        tokens.append(count)
        frames += used
        patches += used * look.grid[0] * look.grid[1]
    visual = sum(tokens[clip] for clip in candidate.mentions)
    return Cost(tokens=candidate.tokens + visual, patches=patches, frames=frames, clips=len(own))


@lru_cache(maxsize=65_536)
def _clip_cost(
    look: Look, kind: str, layout: LayoutConfig, codec: TextCodec, images: int
) -> tuple[int, int]:
    slots = layout_of(look, kind, layout, codec.count, images)
    return sum(slot.n for slot in slots), len(frames_used(slots))
