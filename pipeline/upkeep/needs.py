"""What a manifest needs of a pool: the receipts by which it is planned again, packed, trained from
and explained, and by which its recipe is built again without decoding anything.

A manifest names its sources by revision; everything else follows from what receipts say of their
inputs. Work that comes before other work and is not read again (compared, crowds, candidates, same)
is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.manifest.contents import Contents
from mixtures.manifest.manifest import Manifest
from shards.errors import UserError
from shards.id_arrays import Ids, find, ids_of, sorting
from shards.ids import short_hash
from shards.index import MEDIA, SAMPLES, WANTED
from shards.pool import Pool, Provenance
from shards.receipts import Receipt, latest, receipts_in

KNOWN = frozenset(
    "admit candidates compare compared crowds decode facts held_out leak_media leak_text lengths "
    "link names same score stream texts tokenizer twins".split()
)
"""Stages whose receipts may be judged; those of others belong to a version that knows them."""


@dataclass(frozen=True)
class Ledger:
    """All receipts of a pool, rows of RECEIPTS, by stage."""

    rows: pa.Table
    _of: dict[str, list[Receipt]] = field(default_factory=dict)

    def of(self, stage: str) -> list[Receipt]:
        """The receipts of a stage, in the order of their work ids."""
        if stage not in self._of:
            self._of[stage] = receipts_in(self.rows_of(stage))
        return self._of[stage]

    def rows_of(self, stage: str) -> pa.Table:
        """The same as rows."""
        rows = self.rows.filter(pc.equal(self.rows["stage"], stage))
        return rows.sort_by("work_id").combine_chunks()

    @cached_property
    def unknown(self) -> set[str]:
        """The work ids of stages that this version does not know."""
        known = pc.is_in(self.rows["stage"], value_set=pa.array(sorted(KNOWN)))
        return set(self.rows.filter(pc.invert(known))["work_id"].to_pylist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one manifest needs: work ids, and the clips of its sources, sorted."""

    work_ids: frozenset[str]
    clips: Ids


def needs_of(pool: Pool, ledger: Ledger, manifest: Manifest, where: str) -> Needs:
    """What the manifest in the file `where` needs; UserError if it is of another pool."""
    contents = manifest.contents
    sources = [one for name in manifest.revisions for one in _admissions(ledger, contents, name)]
    _check(pool, manifest, sources, where)
    compared = _comparisons(ledger, manifest)
    held_out = _held_out(ledger, contents, compared)
    shown, exams = clips_of(pool, sources), clips_of(pool, held_out)
    tables = {name for one in sources for name in one.outputs["index/samples"]}
    decoded = holding(ledger.rows_of("decode"), shown)
    kept = [
        *sources,
        *held_out,
        *compared,
        *_gathered(pool, ledger, [*sources, *held_out]),
        *_of_texts(ledger, manifest, tables),
        *_leaks(ledger, contents, tables, decoded),
        *_scores(ledger, contents, tables, decoded),
    ]
    ids = {one.work_id for one in kept} | decoded | holding(ledger.rows_of("held_out"), exams)
    return Needs(work_ids=frozenset(ids), clips=shown)


def remembered(ledger: Ledger, kept: Iterable[str]) -> set[str]:
    """The work ids of those facts that plans over what is kept ask for (mixtures.pool.columns)."""
    kept = set(kept)
    decoded = [name for name in ledger.rows_of("decode")["work_id"].to_pylist() if name in kept]
    facts = ledger.of("facts")
    of_clips = {
        one.work_id
        for one in facts
        if one.parameters["of"] == "clips" and one.inputs == (short_hash(decoded),)
    }
    # facts of samples name the admission, the counts, and last the facts of clips
    of_samples = {
        one.work_id
        for one in facts
        if one.parameters["of"] == "samples"
        and one.inputs[-1] in of_clips
        and kept.issuperset(one.inputs[:-1])
    }
    return of_clips | of_samples


def clips_of(pool: Pool, admitted: Sequence[Receipt]) -> Ids:
    """The clips that these admissions name, sorted, each once."""
    named = ids_of(pool.table(admitted, "index/media", MEDIA)["clip_id"])
    samples = pool.table(admitted, "index/samples", SAMPLES)["clip_ids"]
    both = np.concatenate([named, ids_of(pc.list_flatten(samples))])
    both = both[sorting(both)]
    fresh = np.ones(len(both), bool)
    fresh[1:] = both[1:] != both[:-1]
    return both[fresh]


def holding(rows: pa.Table, clips: Ids) -> set[str]:
    """The work ids of those receipts whose inputs are clips, one of these at least."""
    asked = ids_of(pc.list_flatten(rows["inputs"]))
    of_row = pc.list_parent_indices(rows["inputs"])
    hit = pa.array(find(clips, asked) >= 0)
    return set(rows["work_id"].take(pc.unique(of_row.filter(hit))).to_pylist())


def _admissions(ledger: Ledger, contents: Contents, name: str) -> list[Receipt]:
    """All admissions of a source as the manifest's: media that moved are admitted anew."""
    meant = next(one.provenance for one in contents.sources if one.name == name)
    return [
        one
        for one in ledger.of("admit")
        if one.parameters["source"] == name and Provenance.of(one) == meant
    ]


def check_sources(pool: Pool, manifest: Manifest, where: str) -> None:
    """Raise UserError if the pool does not hold the sources that the manifest in `where` names."""
    _check(pool, manifest, pool.admitted(manifest.provenance), where)


def _check(pool: Pool, manifest: Manifest, receipts: Sequence[Receipt], where: str) -> None:
    if manifest.contents.profile != pool.profile:
        raise UserError(
            f"{where}: planned from a pool of another profile than {pool.store.url}; name one that "
            "was planned from this pool"
        )
    missing = manifest.revisions.keys() - {one.parameters["source"] for one in receipts}
    if missing:
        name = min(missing)
        raise UserError(
            f"{where}: {pool.store.url} holds no source {name!r} at revision "
            f"{manifest.revisions[name]} under {manifest.provenance[name].licence}; name one that "
            "was planned from this pool"
        )


def _comparisons(ledger: Ledger, manifest: Manifest) -> list[Receipt]:
    """Those that a plan reads: they cover the sources and name the held-out sets."""
    held_out = set(manifest.contents.recipe.held_out)
    return latest(
        [
            one
            for one in ledger.of("compare")
            if manifest.revisions.items() <= one.parameters["sources"].items()
            and held_out <= one.parameters["held_out"].keys()
        ]
    )


def _held_out(ledger: Ledger, contents: Contents, compared: Sequence[Receipt]) -> list[Receipt]:
    """The admissions of the manifest's held-out sets; it does not say at which revision."""
    named = {
        (name, one.parameters["held_out"][name])
        for one in compared
        for name in contents.recipe.held_out
    }
    return [
        one
        for one in ledger.of("admit")
        if (one.parameters["source"], one.parameters["revision"]) in named
    ]


def _gathered(pool: Pool, ledger: Ledger, admitted: Sequence[Receipt]) -> list[Receipt]:
    """What was listed, read of archives and fetched for these admissions."""
    # the last input of an admission is what was found, those before are its annotation files
    files = {(one.parameters.get("format"), one.inputs[:-1]) for one in admitted}
    listed = [one for one in ledger.of("names") if (one.parameters["format"], one.inputs) in files]
    tables = {name for one in listed for name in one.outputs["index/wanted"]}
    streamed = [one for one in ledger.of("stream") if tables & set(one.parameters["wanted"])]
    linked = ledger.of("link")
    if linked:
        urls = set(pool.table(listed, "index/wanted", WANTED)["url"].to_pylist())
        linked = [one for one in linked if urls & set(one.inputs)]
    return [*listed, *streamed, *linked]


def _of_texts(ledger: Ledger, manifest: Manifest, tables: set[str]) -> list[Receipt]:
    """Counts of tokens, the tokenizer, and comparisons of texts where the recipe asks for them."""
    contents = manifest.contents
    profile = manifest.codec.profile_id
    receipts = [
        one
        for one in ledger.of("lengths")
        if one.parameters["text_profile"] == profile and tables & set(one.inputs)
    ]
    tokenizer = contents.text.tokenizer_sha256
    receipts += [one for one in ledger.of("tokenizer") if tokenizer in one.inputs]
    if contents.recipe.near_text is None:
        return receipts
    receipts += [one for one in ledger.of("texts") if tables & set(one.inputs)]
    text_pairs = ledger.of("twins")
    return receipts + [one for one in text_pairs if one.parameters["sources"] == manifest.revisions]


def _leaks(
    ledger: Ledger, contents: Contents, tables: set[str], decodings: set[str]
) -> list[Receipt]:
    """Matches of the manifest's clips and texts with its leak index."""
    if contents.recipe.leaks is None:
        return []
    index = contents.recipe.leaks.index
    of_clips = {
        name
        for one in ledger.of("decode")
        if one.work_id in decodings
        for name in one.outputs["index/fingerprints"]
    }
    wanted = {"leak_media": of_clips, "leak_text": tables}
    return [
        one
        for stage, inputs in wanted.items()
        for one in ledger.of(stage)
        if one.parameters["index"] == index and inputs & set(one.inputs)
    ]


def _scores(
    ledger: Ledger, contents: Contents, tables: set[str], decode_ids: set[str]
) -> list[Receipt]:
    """The columns of scores that the manifest's filters name, of its clips and samples, and the one
    by which frames are selected."""
    digests = set((contents.recipe.scores or {}).values())
    if contents.recipe.frame_scores is not None:
        digests.add(contents.recipe.frame_scores.scorer)
    inputs = tables | {
        name
        for one in ledger.of("decode")
        if one.work_id in decode_ids
        for name in one.outputs["index/clips"]
    }
    return [
        one
        for one in ledger.of("score")
        if one.parameters["digest"] in digests and inputs.issuperset(one.inputs)
    ]
