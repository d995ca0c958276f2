"""A folder of one's own: its annotation files, the format that reads each, and where media lie.

Formats are told by their adapters: each reads the first records of a file, and the one that makes
the most of them is taken. Nothing is decoded, and no file is written.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath

from pipeline.sources import FORMATS, JOINED, records
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.folder_names import FolderNames, folder_names
from pipeline.sources.formats import table
from pipeline.sources.records import Columns, MediaRef, Record, RowRefusal, once_each
from pipeline.sources.text_files import suffix_of
from shards.errors import UserError

TRIED = tuple(
    name
    for name in FORMATS
    # an alias, evaluation sets, and two files that make one table
    if name not in {"sharegpt_messages", "benchmark_questions", "table", *BENCHMARKS, *JOINED}
)
"""Formats that are told from the records alone; of equals the first is taken."""
ANNOTATIONS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".tar")
ARCHIVES = re.compile(r"\.(tar|tar\.gz|tgz|zip)$")
TO_TELL = 50
"""Records of a file that every format is tried on."""
MOST_RECORDS = 20_000
"""Records of a source that are read at most."""
MOST_FILES = 1_000_000
"""Files of a folder that are looked through at most."""
MOST_GROUPS = 200
"""Files that may be annotations, but for those that only numbers tell apart."""
SHOWN = 3
"""Records of each source that are shown."""
MEANINGS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "key", "uid"),
    "question": ("question", "prompt", "instruction", "query"),
    "answer": ("answer", "response", "output", "completion", "caption", "text"),
    "image": ("image", "image_path", "picture", "photo", "img"),
    "video": ("video", "video_path", "film", "clip"),
}
"""Names that columns of tables have by custom, by what they mean."""
OF_EITHER = ("file", "file_name", "filename", "path")
"""Names of columns of images or of videos, which the ending of a value tells."""
_ENDINGS = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    "video": (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """One source of a folder: its files, how they are read, and what came of its records.

    `annotations` are names of files, or one pattern that fits them and no other file. `media` is
    the folder that the names of its media start from, "" where none of them lies there; `missing`
    are names that no file has, `usable` the records read that name none of those (all of them,
    where none is there: they may lie in archives). `whole`: every record was read.
    """

    name: str
    annotations: tuple[str, ...]
    format: str
    columns: Columns
    media: str
    read: int
    refused: Mapping[str, tuple[int, str]]
    images: int
    videos: int
    missing: tuple[str, ...]
    usable: int
    whole: bool
    shown: tuple[Record, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a folder holds; `unread` are (file, why) of files that no format reads."""

    folder: Path
    sources: tuple[Surveyed, ...]
    unread: tuple[tuple[str, str], ...]
    archives: tuple[str, ...]
    media_files: int


def survey(folder: Path) -> Survey:
    """Look at the folder; UserError where it is none, or holds no annotations that are read."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give the one that holds annotations and media")
    names = folder_names(folder, MOST_FILES)
    sources = []
    unread = []
    for files in _groups(names):
        told = _told(folder, files, names)
        if isinstance(told, str):
            unread.append((files[0], told))
        else:
            sources.append(told)
    archives = [name for name in names.files if ARCHIVES.search(name)]
    taken = {name for source in sources for name in archives if source.format == "webdataset"}
    surveyed = Survey(
        folder=folder,
        sources=_apart(sources),
        unread=tuple((name, why) for name, why in unread if name not in archives),
        archives=tuple(name for name in archives if name not in taken),
        media_files=sum(kind_of(name) != "" for name in names.files),
    )
    if not sources:
        raise UserError(*_nothing(surveyed))
    return surveyed


def kind_of(name: str) -> str:
    """ "image" or "video" by a name's ending, "" for anything else."""
    ending = PurePosixPath(name).suffix.lower()
    return next((kind for kind, endings in _ENDINGS.items() if ending in endings), "")


def _nothing(folder_survey: Survey) -> Iterator[str]:
    if not folder_survey.unread:
        yield (
            f"{folder_survey.folder}: no annotations here ({', '.join(ANNOTATIONS)}, plain or "
            ".gz); write one object per line as docs/own_data.md shows"
        )
    for name, why in folder_survey.unread[:10]:
        yield f"{folder_survey.folder / name}: {why}"


def _groups(names: FolderNames) -> list[list[str]]:
    """Annotation files that are one source: of one folder, their names equal but for numbers."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names.files:
        kind = suffix_of(Path(name))
        # a picture's own .json is no table of records
        if kind in ANNOTATIONS and Path(name).name not in ("tokenizer.json", "config.json"):
            groups[re.sub(r"[0-9]+", "*", name)].append(name)
    if len(groups) > MOST_GROUPS:
        raise UserError(
            f"{names.root}: more than {MOST_GROUPS} files that may be annotations; put those that "
            "are into a folder of their own, and name that one"
        )
    return list(groups.values())


def _told(folder: Path, files: Sequence[str], names: FolderNames) -> Surveyed | str:
    """The source that these files are, or why no format reads them."""
    first = folder / files[0]
    found = [_tried(form, (), first, names) for form in TRIED]
    columns = _columns(first)
    if columns:
        found.append(_tried("table", columns, first, names))
    best = max(found, key=lambda one: one.worth)
    if best.worth == (0, 0):
        there = ", ".join(_fields(first))
        has = f"; its first record has {there[:200]}" if there else ""
        return f"no format reads its records{has}; see docs/sources.md"
    return _read(best, folder, files, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What a format makes of the first records of a file."""

    format: str
    columns: Columns
    worth: tuple[int, int]


def _tried(form: str, columns: Columns, path: Path, names: FolderNames) -> _Trial:
    """How many of the first records find all their media, and how many are records at all."""
    try:
        items = list(islice(records(form, [path], columns), TO_TELL))
    except UserError:
        return _Trial(format=form, columns=columns, worth=(0, 0))
    read = [item for item in items if isinstance(item, Record)]
    whole = [one for one in read if all(_is_there(ref, names) for ref in one.media)]
    return _Trial(format=form, columns=columns, worth=(len(whole), len(read)))


def _is_there(ref: MediaRef, names: FolderNames) -> bool:
    if ref.data is not None or ref.url:
        return True
    # a folder of pictures is a folder, anything else a file
    folders = any((names.root / home / ref.name).is_dir() for home in names.homes(ref))
    return bool(names.homes(ref)) and folders == (ref.fps is not None and not ref.sizes)


def _read(best: _Trial, folder: Path, files: Sequence[str], names: FolderNames) -> Surveyed:
    published = records(best.format, [folder / name for name in files], best.columns)
    everything = map(_without_bytes, once_each(published))
    items = list(islice(everything, MOST_RECORDS + 1))
    whole = len(items) <= MOST_RECORDS
    read = [item for item in items[:MOST_RECORDS] if isinstance(item, Record)]
    named = [ref for one in read for ref in one.media]
    outside = [ref for ref in named if ref.data is None and not ref.url]
    homes = Counter(home for ref in outside for home in names.homes(ref))
    # of folders from which as many names are found the outermost
    media = min(homes, key=lambda home: (-homes[home], home.count("/"), home), default="")
    missing = [ref.name for ref in outside if media not in names.homes(ref)]
    lost = set(missing) if homes else set()
    return Surveyed(
        name=_name(files[0]),
        annotations=_annotations(files, names),
        format=best.format,
        columns=best.columns,
        media=str(folder / media) if homes else "",
        read=len(read),
        refused=_refused(items),
        images=sum(ref.kind == "image" for ref in named),
        videos=sum(ref.kind == "video" for ref in named),
        missing=tuple(dict.fromkeys(missing)),
        usable=sum(not lost & {ref.name for ref in one.media} for one in read),
        whole=whole,
        shown=tuple(read[:SHOWN]),
        texts=tuple(turn.text for one in read for turn in one.turns),
    )


def _without_bytes(item: Record | RowRefusal) -> Record | RowRefusal:
    """The record with embedded media emptied: thousands of them are held."""
    if isinstance(item, RowRefusal):
        return item
    refs = (ref if ref.data is None else replace(ref, data=b"") for ref in item.media)
    return replace(item, media=tuple(refs))


def _refused(records: Sequence[Record | RowRefusal]) -> dict[str, tuple[int, str]]:
    """Code -> (how many, the first as an example), most frequent first."""
    refused = [item for item in records if isinstance(item, RowRefusal)]
    counts = Counter(item.code for item in refused)
    first = {item.code: f"{item.record}: {item.detail}" for item in reversed(refused)}
    return {code: (count, first[code]) for code, count in counts.most_common()}


def _annotations(files: Sequence[str], names: FolderNames) -> tuple[str, ...]:
    """The pattern that fits these files and nothing else of the folder, else their names."""
    pattern = re.sub(r"[0-9]+", "*", files[0])
    fitting = {name for name in names.files if fnmatchcase(name, pattern)}
    return (pattern,) if len(files) > 1 and fitting == set(files) else tuple(files)


def _name(path_name: str) -> str:
    """A source's name out of its file's and its folders': letters, digits, `_` and `-`."""
    path = PurePosixPath(path_name)
    # the folders too: `test/metadata.jsonl` is evaluation data by its folder's name
    stem = "_".join([*path.parent.parts, path.name.partition(".")[0]])
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", re.sub(r"[-_.]?[0-9]+(-of-[0-9]+)?$", "", stem))
    return plain.strip("_-")[-60:].strip("_-") or "source"


def _apart(surveyed: Sequence[Surveyed]) -> tuple[Surveyed, ...]:
    """The sources under names of their own."""
    seen: Counter[str] = Counter()
    named = []
    for one in surveyed:
        seen[one.name] += 1
        number = seen[one.name]
        named.append(one if number == 1 else replace(one, name=f"{one.name}_{number}"))
    return tuple(named)


# Tables ------------------------------------------------------------------------


def _fields(path: Path) -> list[str]:
    """The names of the first row's fields, empty where it is no row of a table."""
    try:
        row = next((row for _, row, _ in table.rows(path, [])), None)
    except UserError:
        return []
    return [*row] if isinstance(row, dict) else []


def _columns(path: Path) -> Columns:
    """What columns mean by their names, empty unless one is an answer."""
    names = _fields(path)
    by_name = {name.lower(): name for name in reversed(names)}
    meant: dict[str, tuple[str, ...]] = {
        meaning: (by_name[known[0]],)
        for meaning, choices in MEANINGS.items()
        if (known := [name for name in choices if name in by_name])
    }
    if "answer" not in meant:
        return ()
    either = [by_name[name] for name in OF_EITHER if name in by_name]
    if either and not {"image", "video"} & set(meant):
        meant[_ends_like(path, either[0]) or "image"] = (either[0],)
    if "instruction" in by_name and "input" in by_name:
        meant["question"] = (by_name["instruction"], by_name["input"])
    return tuple(sorted(meant.items()))


def _ends_like(path: Path, column: str) -> str:
    row = next(row for _, row, _ in table.rows(path, []))
    return kind_of(str(row.get(column))) if isinstance(row, dict) else ""
