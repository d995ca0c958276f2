"""`build --dry-run`: what a build would fetch, read and decode, and what that comes to.

Annotations that are on this machine are read, and media are looked up by name and listed, but no
medium is opened: nothing is fetched, decoded or written. What an archive holds is known once it was
read, so its media are counted as records name them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mixtures.console import Console, fitting
from pipeline.fetch import hub, links, local_files, object_store
from pipeline.jobs.collect import LINKED, archive_units
from pipeline.media.image_sequences import Stills
from pipeline.sources import records
from pipeline.sources.media_lookup import Found, MediaTable, Members, folder_table, joined
from pipeline.sources.numbered import NumberedIds
from pipeline.sources.pin import Pinned
from pipeline.sources.records import MediaRef, Record
from pipeline.stages import fetch_media, list_media, named_media, pending, read_archive
from pipeline.stages.open_media import open_address, plain
from shards.errors import UserError
from shards.ids import clip_id, short_hash
from shards.pool import Pool, Receipt
from shards.profile import Profile
from shards.store import Store

ASKED_AT_ONCE = 16
"""Servers' answers to how large a file is, side by side."""
KINDS = ("image", "video")
SAMPLE_BYTES = 4096
"""Of a sample in a shard besides its clips, about."""


@dataclass(slots=True, kw_only=True)
class Foreseen:
    """What a build would do for one source. A file or a medium that several sources name is counted
    once, with the first of them.

    `records` is None, and media are not counted, where the annotations are still to be fetched;
    `fetch_bytes` counts files whose size a server tells, `fetch_unsized` is how many others there
    are. `before` are media that the pool has, or refused; `missing` have nothing of their name.
    Those left to decode are `images` and `videos`: `unread` of them lie in archives or behind
    addresses, the others have `nbytes` as they are.
    """

    source: str
    records: int | None = None
    fetch_files: int = 0
    fetch_bytes: int = 0
    fetch_unsized: int = 0
    links: int = 0
    archives: int = 0
    archive_bytes: int = 0
    before: int = 0
    missing: int = 0
    images: int = 0
    videos: int = 0
    unread: int = 0
    nbytes: int = 0
    shown: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    """How often records show a medium of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What receipts of a pool say of a kind: milliseconds of one core, and bytes kept, a medium."""

    milliseconds: float
    nbytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a build would do; hours and bytes are None where no receipt of the pool says a rate.

    `core_hours` are of decoding, `clip_bytes` what the pool would grow by; `shard_bytes` counts
    every record once.
    """

    sources: tuple[Foreseen, ...]
    core_hours: float | None
    clip_bytes: int | None
    shard_bytes: int | None


def foresee(
    sources: Sequence[Pinned],
    held_out: Sequence[Pinned],
    profile: Profile,
    pool_url: str,
    retry: frozenset[str] = frozenset(),
) -> DryRun:
    """What a build would do; `retry` names codes of media that are to be tried again."""
    pool = Pool(pool_url) if Store(pool_url).exists("profile.json") else None
    training, exams = (
        list(_Survey(pinned, _Before(pool, profile, stage, retry)).sources())
        for pinned, stage in ((sources, "decode"), (held_out, "held_out"))
    )
    return _summed(training, exams, {} if pool is None else rates(pool))


def _summed(
    training: Sequence[Foreseen], exams: Sequence[Foreseen], by_kind: Mapping[str, Rates]
) -> DryRun:
    def total(counts: Mapping[str, int], rate: Callable[[Rates], float]) -> float | None:
        """Media of each kind by what one of them takes; None where a kind has no rate."""
        needed = [kind for kind in KINDS if counts[kind]]
        if any(kind not in by_kind for kind in needed):
            return None
        return sum(counts[kind] * rate(by_kind[kind]) for kind in needed)

    # how often records show media decides the size of shards, not how many media there are
    shown = {kind: sum(one.shown[kind] for one in training) for kind in KINDS}
    milliseconds = total(_left([*training, *exams]), lambda rate: rate.milliseconds)
    # of held-out media no clips are kept
    clips, packed = (total(n, lambda rate: rate.nbytes) for n in (_left(training), shown))
    overhead = SAMPLE_BYTES * sum(one.records or 0 for one in training)
    return DryRun(
        sources=(*training, *exams),
        core_hours=None if milliseconds is None else round(milliseconds / 3.6e6, 6),
        clip_bytes=None if clips is None else round(clips),
        shard_bytes=None if packed is None else round(packed) + overhead,
    )


def _left(foreseen: Sequence[Foreseen]) -> dict[str, int]:
    """Media of each kind that are to be decoded."""
    return {
        "image": sum(source.images for source in foreseen),
        "video": sum(source.videos for source in foreseen),
    }


def rates(pool: Pool) -> dict[str, Rates]:
    """What decoding took in this pool, by kind; receipts of versions that took no time say none."""
    sums: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for row in pool.ledger.table("decode").select(["counts"]).to_pylist():
        counts = json.loads(row["counts"])
        # the media of a unit are of one kind
        kind = "image" if counts.get("images") else "video"
        if "milliseconds" in counts:
            sums[kind].update({name: counts[name] for name in ("media", "milliseconds", "nbytes")})
    return {
        kind: Rates(
            milliseconds=one["milliseconds"] / one["media"], nbytes=one["nbytes"] / one["media"]
        )
        for kind, one in sums.items()
        if one["media"]
    }


# what was done before ----------------------------------------------------------------


Archive = tuple[tuple[str, ...], str]
"""Its parts, and the folder of the media's names that its members lie in."""


class _Before:
    """What a pool says that was done of a stage, of codes but `retry`; nothing without a pool."""

    def __init__(
        self, pool: Pool | None, profile: Profile, stage: str, retry: frozenset[str]
    ) -> None:
        self.pool, self.stage, self.retry = pool, stage, retry
        self.profile_id = profile.profile_id
        self.known = pending.Known(pool, pool.ledger.table(stage)) if pool else None
        # where media lie that need not be opened again, whichever sources named them
        self.addresses = NumberedIds()
        for clips in self._media():
            finished = self._finished(clips["clip_id"].to_pylist())
            for row in clips.to_pylist():
                if row["clip_id"] in finished:
                    _new(self.addresses, [row["address"], row["kind"], row["span"]])

    def _media(self) -> Iterator[pa.Table]:
        if self.pool:
            names = self.pool.files(self.pool.receipts("admit"), "index/media")
            yield from (table for _, table in self.pool.tables("index/media", names))

    def _finished(self, clips: Sequence[str]) -> set[str]:
        """Those of these clips that were decoded or refused, and are not to be tried again."""
        outcomes = self.known.outcomes(clips) if self.known else {}
        return {clip for clip, code in outcomes.items() if code not in self.retry}

    def has(self, ref: MediaRef, located: Found, address: str) -> bool:
        """Whether it was decoded or refused, by the digest of its bytes or, where no digest is
        known, by where it lies."""
        # a folder of pictures has a digest of names alone, since no file was hashed
        if not located.digest or located.address.startswith("folder"):
            return self.addresses.find(_id([address, *_clip(ref)])) >= 0
        # members and fetched addresses were hashed as they passed
        clip = clip_id(located.digest, ref.kind, ref.span, self.profile_id, ref.fps)
        return bool(self._finished([clip]))

    def archives(self, pinned: Sequence[Pinned]) -> dict[Archive, list[Receipt]]:
        """The archives that were read for what these sources want now, each with its receipts."""
        pool = self.pool
        needing = [one for one in pinned if one.archives]
        listed = {one.source.name: _listed(one, pool) for one in needing} if pool else {}
        # of a source whose names were never listed no archive was read
        if pool is None or not all(listed.values()):
            return {}
        there = [one for one in needing if all(map(local_files.here, _parts(one)))]
        done = {short_hash(one.parameters): one for one in pool.receipts("stream")}
        streamed: dict[Archive, list[Receipt | None]] = defaultdict(list)
        names = {name: receipt for name, receipt in listed.items() if receipt}
        for unit in archive_units(there, names, self.stage, pool):
            nbytes = sum(_size(part) or 0 for part in unit.parts)
            # the receipt's parameters but for the digest, which nobody knows without reading
            work = short_hash(read_archive.parameters_of(unit, self.profile_id, nbytes))
            streamed[unit.parts, unit.under].append(done.get(work))
        read = {archive: [one for one in units if one] for archive, units in streamed.items()}
        return {
            archive: units
            for archive, units in read.items()
            if len(units) == len(streamed[archive])
        }

    def members(self, pinned: Pinned, streamed: Mapping[Archive, Sequence[Receipt]]) -> Members:
        """What archives and addresses of a source are known to have held."""
        if self.pool is None:
            return Members()
        receipts = [one for archive in pinned.archives for one in streamed.get(archive, ())]
        if pinned.source.format == LINKED:
            receipts += fetch_media.last_attempts(self.pool.receipts("link"))
        names = self.pool.files(receipts, "index/members")
        tables = self.pool.tables("index/members", names)
        return joined(row for _, table in tables for row in table.to_pylist())


# one source after the other ----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known of a source's media: what answers their names, where files were fetched from,
    and H of the archives that are still to be read, "" for none."""

    table: MediaTable
    origins: Mapping[str, str]
    unread: str


class _Survey:
    """Sources of one stage, beside what was done before."""

    def __init__(self, pinned: Sequence[Pinned], history: _Before) -> None:
        self.pinned, self.history = pinned, history
        self.read = history.archives(pinned)
        # what a source before has counted
        self.files: set[str] = set()
        self.media = NumberedIds()

    def sources(self) -> Iterator[Foreseen]:
        """What is to be done for each of them, in their order."""
        for pinned in self.pinned:
            # each mutable while it is counted, and nobody's any more when it is yielded
            foreseen = Foreseen(source=pinned.source.name)
            self._fetching(pinned, foreseen)
            unread = [archive for archive in pinned.archives if archive not in self.read]
            for parts, under in unread:
                if self._is_new("\n".join((*parts, under))):
                    foreseen.archives += 1
                    foreseen.archive_bytes += sum(_size(part) or 0 for part in parts)
            files = [local_files.here(address) for address in pinned.annotations]
            # annotations that are to be fetched first leave the records unknown
            if all(files):
                lookup = self._known(pinned, unread)
                self._media(pinned, [file for file in files if file], lookup, foreseen)
            yield foreseen

    def _is_new(self, name: str) -> bool:
        """Whether no source before has counted it."""
        before = len(self.files)
        self.files.add(name)
        return len(self.files) > before

    def _fetching(self, pinned: Pinned, foreseen: Foreseen) -> None:
        """The files of a source that this machine lacks."""
        named = [*pinned.annotations, *_parts(pinned), *(address for _, address in pinned.loose)]
        # a file of another source is fetched once for both
        absent = (address for address in named if local_files.here(address) is None)
        lacking = [address for address in absent if self._is_new(address)]
        with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
            sizes = list(threads.map(_size, lacking))
        foreseen.fetch_files = len(lacking)
        foreseen.fetch_bytes = sum(size or 0 for size in sizes)
        foreseen.fetch_unsized = sizes.count(None)

    def _known(self, pinned: Pinned, unread: Sequence[Archive]) -> _Known:
        """No file of a media folder is hashed for it."""
        source = pinned.source
        root = local_files.resolve(source.media, "media") if source.media else None
        loose = {name: local_files.here(address) for name, address in pinned.loose}
        table = MediaTable(
            folder=folder_table(root, lambda _: "", pinned.homes).folder,
            loose={name: ("", file.path) for name, file in loose.items() if file},
            members=self.history.members(pinned, self.read),
        )
        files = [*map(local_files.here, pinned.annotations), *loose.values()]
        return _Known(
            table=table,
            origins={str(file.path.resolve()): file.address for file in files if file},
            unread=short_hash([[*parts, under] for parts, under in unread]) if unread else "",
        )

    def _media(
        self, pinned: Pinned, files: Sequence[local_files.Local], lookup: _Known, foreseen: Foreseen
    ) -> None:
        """The media that the records of a source name, each looked up once."""
        met = NumberedIds()
        foreseen.records = 0
        paths = [file.path for file in files]
        # records stream: of each medium an id of 16 bytes is kept
        for item in records(pinned.source.format, paths, pinned.source.columns):
            foreseen.records += 1
            for ref in item.media if isinstance(item, Record) else ():
                foreseen.shown[ref.kind] += 1
                if _new(met, [ref.name, ref.url, ref.address, *_clip(ref), ref.start, *ref.sizes]):
                    self._look_up(ref, lookup, foreseen)

    def _look_up(self, ref: MediaRef, lookup: _Known, foreseen: Foreseen) -> None:
        # embedded bytes are not hashed: their address says which they are
        located = Found("", ref.address) if ref.data is not None else lookup.table.find(ref)
        if not isinstance(located, Found):
            self._lacking(ref, located.code, lookup, foreseen)
        elif _new(self.media, [located.address, *_clip(ref)]):
            address = named_media.portable(located.address, lookup.origins)
            if self.history.has(ref, located, address):
                foreseen.before += 1
            else:
                _count(ref, _nbytes(ref, located.address), foreseen)

    def _lacking(self, ref: MediaRef, code: str, lookup: _Known, foreseen: Foreseen) -> None:
        """A name that nothing answers yet: it may lie in an archive that is still to be read."""
        asks = bool(ref.url) and (code == "MEDIA_MISSING" or code in self.history.retry)
        if not asks and not lookup.unread:
            foreseen.missing += 1
        elif _new(self.media, [ref.url or ref.name, ref.fps, *_clip(ref), lookup.unread]):
            foreseen.links += asks
            _count(ref, None, foreseen)


def _parts(pinned: Pinned) -> list[str]:
    return [part for parts, _ in pinned.archives for part in parts]


def _listed(pinned: Pinned, pool: Pool) -> Receipt | None:
    """The receipt that lists what the records of a source want, if there is one."""
    files = [local_files.here(address) for address in pinned.annotations]
    if not all(files):
        return None
    unit = list_media.NamesUnit(
        pool=pool.store.url,
        format=pinned.source.format,
        annotations=pinned.annotations,
        columns=pinned.source.columns,
    )
    return pool.done(list_media.work_of(unit))


def _clip(ref: MediaRef) -> list[object]:
    """What makes a clip of bytes, but for the rate of pictures, which addresses name."""
    return [ref.kind, None if ref.span is None else list(ref.span)]


def _id(value: list[object]) -> bytes:
    return bytes.fromhex(short_hash(value))


def _new(met: NumberedIds, value: list[object]) -> bool:
    """Whether it was not met before; now it was."""
    before = len(met)
    return met.add(_id(value)) == before


def _count(ref: MediaRef, nbytes: int | None, foreseen: Foreseen) -> None:
    """One medium more to decode; its bytes are None where they are not here yet."""
    if ref.kind == "image":
        foreseen.images += 1
    else:
        foreseen.videos += 1
    foreseen.unread += nbytes is None
    foreseen.nbytes += nbytes or 0


def _nbytes(ref: MediaRef, address: str) -> int | None:
    """Bytes of a medium, which is not opened; None in an archive, or behind an address."""
    if ref.data is not None or ref.sizes:
        return sum(ref.sizes) if ref.data is None else len(ref.data)
    if ref.url or address.startswith("member:"):
        return None
    if address.startswith("copy:"):
        return links.opened(plain(address).rpartition("#")[0]).stat().st_size
    # opening an address reads nothing of a file or a folder of pictures
    with open_address(address) as there:
        files: Sequence[Path] = there.files if isinstance(there, Stills) else [there]
    return sum(file.lstat().st_size for file in files)


def _size(address: str) -> int | None:
    """Bytes of a file, fetched or not; None where its server was not asked, or does not say."""
    # what is here tells by itself, whatever its address
    if file := local_files.here(address):
        return file.nbytes
    try:
        if address.startswith("hf://"):
            return hub.request(address)[0].nbytes
        if address.partition("://")[0] in object_store.SCHEMES:
            return object_store.size(address)
    except UserError:  # the build will tell
        return None
    return None


# for people --------------------------------------------------------------------------


def tell(console: Console, dry_run: DryRun) -> None:
    """The sources of a dry run, and what they come to."""
    columns = "records fetch_files archives before missing images videos nbytes".split()
    shown = {"fetch_files": "files\nto fetch", "archives": "archives\nto read"}
    shown |= {"before": "media\nbefore", "missing": "media\nmissing", "nbytes": "bytes"}
    rows = [
        [one.source, *("?" if (n := getattr(one, c)) is None else str(n) for c in columns)]
        for one in dry_run.sources
    ]
    headers = ["source", *(shown.get(name, name) for name in columns)]
    console.print(fitting(console, headers, rows, [shown["before"], shown["archives"]]))
    for line in _lines(dry_run):
        console.print(line, highlight=False, soft_wrap=True)


def _lines(dry_run: DryRun) -> Iterator[str]:
    sums: Counter[str] = Counter()
    for source in dry_run.sources:
        names = "fetch_files fetch_bytes fetch_unsized links archives archive_bytes unread nbytes"
        sums.update({name: getattr(source, name) for name in names.split()})
    unsized = f" and {sums['fetch_unsized']} files of unknown size" if sums["fetch_unsized"] else ""
    yield (
        f"fetch   {sums['fetch_files']} files, {sums['fetch_bytes']:,} bytes{unsized}; "
        f"{sums['links']} addresses of media"
    )
    yield f"read    {sums['archives']} archives, {sums['archive_bytes']:,} bytes"
    left = _left(dry_run.sources)
    hours = (
        "hours unknown" if dry_run.core_hours is None else f"{dry_run.core_hours:,.4f} core hours"
    )
    yield (
        f"decode  {left['image']} images and {left['video']} videos, {sums['unread']} of them in "
        f"archives or behind addresses, the others {sums['nbytes']:,} bytes; {hours}"
    )
    if dry_run.clip_bytes is None or dry_run.shard_bytes is None:
        yield "write   bytes unknown: no receipt of the pool says what such media become"
    else:
        yield (
            f"write   about {dry_run.clip_bytes:,} bytes of clips; shards of about "
            f"{dry_run.shard_bytes:,} bytes if every record is drawn once"
        )
    if any(one.records is None for one in dry_run.sources):
        yield "?: annotations that are still to be fetched; what they name is not counted"
