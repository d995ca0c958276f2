"""OUT/recipe.lock.json: a recipe as resolved, with the digest of every file that it names.

The manifest names content and no places; the lock names both, so that whoever has it can fetch the
same bytes again (pipeline.rebuild), or is told which of them are others now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mixtures.manifest.files import LOCK
from mixtures.manifest.manifest import Manifest
from mixtures.recipe.strict_yaml import dump_yaml, load_yaml
from mixtures.recipe.types import HeldOut, Recipe, Source
from pipeline.fetch import hub, local_files
from pipeline.fetch.digest_cache import Digests
from pipeline.media.decode import check_tools
from pipeline.sources.catalogue import completed
from pipeline.sources.pin import Pinned
from shards.envelope import Envelope
from shards.errors import UserError
from shards.leak_index import open_index
from shards.pool import Receipt
from shards.store import Store

ENVELOPE = Envelope(
    schema="slowfast-mix/recipe-lock/1",
    if_damaged="copy it again from where it was built",
    if_outdated="build again with the version that wrote it, or plan the recipe anew",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What a source was made of: its annotation files as [address, sha256], in their order; `media`
    is a digest of all media that its records name, "" for held-out data."""

    name: str
    files: list[list[str]]
    media: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A built recipe: `recipe` is its YAML with every address absolute and pinned, `tokenizer` the
    sha256 of the file, `leaks` the id of its leak index or "", `ffmpeg` the build that decoded."""

    manifest_id: str
    recipe: str
    sources: list[Locked]
    held_out: list[Locked]
    tokenizer: str
    leaks: str
    ffmpeg: str


def lock_of(
    recipe: Recipe,
    sources: Sequence[Pinned],
    exams: Sequence[Pinned],
    admitted: dict[str, Receipt],
    manifest: Manifest,
) -> Lock:
    """What a build was made of, when its manifest is there."""
    index = open_index(recipe.leaks.index).index_id if recipe.leaks else ""
    return Lock(
        manifest_id=manifest.manifest_id,
        recipe=as_pinned(recipe, [*sources, *exams]),
        sources=[_locked(one, admitted[one.source.name]) for one in sources],
        held_out=[_locked(one, None) for one in exams],
        tokenizer=manifest.contents.text.tokenizer_sha256,
        leaks=index,
        ffmpeg=ffmpeg_build(),
    )


def write_lock(out: str, lock: Lock) -> None:
    """Beside the manifest of a build."""
    Store(out).put(LOCK, ENVELOPE.seal(asdict(lock)))


def read_lock(path: Path) -> Lock:
    """A lock; UserError if there is none, DamagedData if it is not as it was written."""
    if not path.is_file():
        raise UserError(f"{path}: not there; a build writes it beside its manifest")
    value = ENVELOPE.unseal(path.read_bytes(), str(path))
    lists = {name: [Locked(**one) for one in value[name]] for name in ("sources", "held_out")}
    return Lock(**(value | lists))


def ffmpeg_build() -> str:
    """The ffmpeg of this machine: another one may decode other pixels."""
    return check_tools(no_sandbox=True).partition(",")[0]


def as_pinned(recipe: Recipe, pinned: Sequence[Pinned]) -> str:
    """The recipe's YAML, catalogue entries written out, every address absolute and pinned."""
    tree = load_yaml(recipe.path)
    by_name = {one.source.name: one for one in pinned}
    sources: list[Source | HeldOut] = [*recipe.sources, *recipe.held_out]
    entries = [*tree["sources"], *tree.get("held_out", [])]
    for entry, source in zip(entries, sources, strict=True):
        entry |= _addresses(completed(source, str(recipe.path)), by_name[source.name])
    tree["text"] = tree.get("text", {}) | {"tokenizer": _absolute(recipe.text.tokenizer)}
    if recipe.leaks:
        tree["leaks"] = tree["leaks"] | {"index": _absolute(recipe.leaks.index)}
    if recipe.exclude:
        tree["exclude"] = _absolute(str(recipe.exclude))
    return dump_yaml(tree)


def _addresses(full: Source | HeldOut, pinned: Pinned) -> dict[str, Any]:
    """The keys of a source that say where it lies, each pattern at the commit that was found."""
    archived = [address for parts, _ in pinned.archives for address in parts]
    addresses = [*pinned.annotations, *archived, *(address for _, address in pinned.loose)]
    said: dict[str, Any] = {
        "format": full.format,
        "annotations": [_at_commit(address, addresses) for address in full.annotations],
        "archives": [
            {"at": _at_commit(archive.at, addresses)}
            | ({"under": archive.under} if archive.under else {})
            for archive in full.archives
        ],
        "media": _absolute(full.media) if full.media else "",
    }
    return {key: value for key, value in said.items() if value}


def _at_commit(address: str, pinned_addresses: Sequence[str]) -> str:
    """The address, or pattern, at the commit of the files that it named."""
    if not address.startswith("hf://"):
        return _absolute(address)
    file = hub.parse(address)
    files = (hub.parse(pinned) for pinned in pinned_addresses if pinned.startswith("hf://"))
    commit = next(pinned_file.revision for pinned_file in files if pinned_file.repo == file.repo)
    return str(replace(file, revision=commit))


def _absolute(place: str) -> str:
    if local_files.is_remote(place) or local_files.is_quoted(place):
        return place
    return str(Path(place).expanduser().absolute())


def _locked(pinned: Pinned, admitted: Receipt | None) -> Locked:
    digests = Digests([pinned.annotations, "lock"])
    files = [[one, digest_of(one, digests)] for one in pinned.annotations]
    digests.save()
    return Locked(
        name=pinned.source.name,
        files=files,
        media=admitted.inputs[-1] if admitted else "",
        revision=str(admitted.parameters["revision"]) if admitted else "",
    )


def digest_of(address: str, digests: Digests) -> str:
    """The sha256 of what lies at an address, fetched if it has to be."""
    file = local_files.local(address)
    return file.digest or digests.of(file.path)


def differing(before: Lock, now: Lock) -> Iterator[str]:
    """A line for each source that is not what it was, and for whatever else differs."""
    for left, right in zip(before.sources, now.sources, strict=True):
        # by their bytes: the same files may lie elsewhere now
        if [digest for _, digest in left.files] != [digest for _, digest in right.files]:
            yield f"{left.name}: its annotations are others"
        elif left.media != right.media:
            yield f"{left.name}: its records are the same, media that they name are others"
        elif left.revision != right.revision:
            yield f"{left.name}: is read otherwise (revision {left.revision}, now {right.revision})"
    others = {
        "tokenizer": (before.tokenizer, now.tokenizer),
        "leak index": (before.leaks, now.leaks),
        "decoded by": (before.ffmpeg, now.ffmpeg),
    }
    for name, (was, is_now) in others.items():
        if was != is_now:
            yield f"{name}: was {was}, is {is_now}"
