"""Parquet tables of pool and shards: their columns, and table <-> bytes with page checksums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import DamagedData
from shards.ids import sha256_hex

# (numerator, denominator): times are exact, no float stands in a table
_FRACTION = pa.list_(pa.int64(), 2)

SAMPLES = pa.schema(
    [
        ("source", pa.string()),
        ("revision", pa.string()),
        ("key", pa.string()),
        ("record", pa.string()),
        ("turns", pa.string()),
        ("turns_digest", pa.string()),
        ("clip_ids", pa.list_(pa.string())),
        ("dataset", pa.string()),
        ("licence", pa.string()),
        ("num_turns", pa.int32()),
        ("num_chars", pa.int32()),
    ]
)
"""One row per admitted sample; `turns` is the JSON of shards.sample.turns_to_json."""

# several rows may lead to one clip: media that moved are admitted again
MEDIA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("media_digest", pa.string()),
        ("kind", pa.string()),
        ("address", pa.string()),
        ("span", pa.list_(pa.int64())),
    ]
)
"""Where a clip's original bytes are: an address that pipeline.fetch knows; span in µs, or null."""

WANTED = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),
        ("fps", pa.int32()),
        ("span", pa.list_(pa.int64())),
        ("url", pa.string()),
    ]
)
"""Media that the records of a source name and that lie in archives or on the web."""

# nobody reads members that are not wanted; those that are have a row each
MEMBERS = pa.schema(
    [
        ("name", pa.string()),
        ("fps", pa.int32()),
        ("near", pa.string()),
        ("media_digest", pa.string()),
        ("address", pa.string()),
        ("code", pa.string()),
        ("detail", pa.string()),
        ("junk", pa.int32()),
        ("numbered", pa.string()),
    ]
)
"""What became of wanted media: digest and address, or a code. `near` is the member's path where its
name is only near the wanted one. Of folders of pictures, which have an `fps`, `junk` counts files
that are none, and `numbered` shows two that their numbers put in other places than their bytes. An
empty name speaks of an archive that could not be read to its end."""

FETCHED = pa.schema([("address", pa.string()), ("digest", pa.string()), ("nbytes", pa.int64())])
"""The pinned address, sha256 and size of each file of annotations that was read."""

UNREAD = pa.schema([("field", pa.string()), ("records", pa.int64()), ("example", pa.string())])
"""Fields of published records that nobody reads: of how many samples, and one value of each."""
NAMED = pa.schema([("what", pa.string()), ("count", pa.int64()), ("example", pa.string())])
"""What the names of a source's media made necessary, by pipeline.sources.name_notes: how often, and
one example."""

CLIPS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("media_digest", pa.string()),
        ("part", pa.string()),
        ("offset", pa.int64()),
        ("extent", pa.int64()),
        ("crc32", pa.uint32()),
        ("kind", pa.string()),
        ("pts", pa.list_(pa.int64())),
        ("time_base", _FRACTION),
        ("duration", _FRACTION),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("nbytes", pa.list_(pa.int64())),
        ("rotation", pa.int32()),
        ("is_vfr", pa.bool_()),
        ("source_fps", _FRACTION),
        ("colour", pa.string()),
        ("codec", pa.string()),
        ("container", pa.string()),
        ("source_size", pa.list_(pa.int64(), 2)),
        ("differences", pa.list_(pa.int32())),
    ]
)
"""One row per decoded clip: the tar members' place in `part` and everything known of the frames."""


# arrays of a clip as bytes: a list of lists would cost an offset for every number
FINGERPRINTS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("kind", pa.string()),
        ("micros", pa.list_(pa.int64())),
        ("quality", pa.list_(pa.int32())),
        ("pictures", pa.binary()),
        ("hashed", pa.list_(pa.int32())),
        ("hashes", pa.binary()),
        ("sides", pa.list_(pa.int32())),
        ("detailed", pa.list_(pa.int32())),
        ("details", pa.binary()),
    ]
)
"""One row per clip: at most 64 pictures (32 x 32 luma, 1 KB each) with their times, the hashes (256
bits each) of at most 16 of them, and the hashes of the tiles (at most 8 KB each) of at most 8 of
them, at these sides; one of each of an image."""

# proposed by hashes, not yet compared
CANDIDATES = pa.schema(
    [
        ("asking", pa.string()),
        ("stored", pa.string()),
        ("view", pa.int32()),
        ("bits", pa.int32()),
        ("asking_picture", pa.int32()),
        ("stored_picture", pa.int32()),
    ]
)
"""Pictures of two clips whose hashes are near, the asking one seen in some way (`view`)."""

CROWDS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("crowd", pa.string()),
        ("reference", pa.string()),
        ("nearest", pa.list_(pa.string())),
        ("relation", pa.string()),
        ("distance", pa.int32()),
    ]
)
"""Clips of crowds: which crowd (its least clip), whose copy a clip is (its own where it is none),
and which references it is compared with."""

REFERENCES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("reference", pa.string()),
        ("relation", pa.string()),
        ("distance", pa.int32()),
    ]
)
"""Copies in a crowd, each with the clip that stands for it in PAIRS; relation is exact or near. A
reference is content: it holds its copies together whether or not a recipe shows it."""

PAIRS = pa.schema(
    [
        ("clip_a", pa.string()),
        ("clip_b", pa.string()),
        ("relation", pa.string()),
        ("distance", pa.int32()),
        ("judged", pa.string()),
    ]
)
"""Duplicate facts, of references and of clips that have none: clip_a < clip_b; relation is exact,
near, mirrored or contained; judged is `same` or `undecided` (too small, or too far apart in time,
to tell)."""

# by benchmark: one clip may match several
LEAKS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("benchmark", pa.string()),
        ("held_out", pa.string()),
        ("relation", pa.string()),
        ("distance", pa.int32()),
        ("judged", pa.string()),
    ]
)
"""Matches of training clips with held-out clips; judged as in PAIRS."""

LEAKED_TEXTS = pa.schema(
    [
        ("key", pa.string()),
        ("benchmark", pa.string()),
        ("held_out", pa.string()),
        ("relation", pa.string()),
        ("shared", pa.int32()),
    ]
)
"""Samples that ask what a benchmark asks, each benchmark once: relation is `whole` or `12-gram`,
`shared` counts the distinct 12-grams in common (0: the question is shorter)."""

LEAK_MEDIA = pa.schema([(name, pa.string()) for name in "clip_id benchmark record".split()])
"""Of a leak index: which clips are a benchmark's, each with the first record that shows it."""

LEAK_QUESTIONS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("record", pa.string()),
        ("words", pa.int32()),
        ("whole", pa.uint64()),
        ("grams", pa.list_(pa.uint64())),
    ]
)
"""Of a leak index: each distinct question, hashed as a whole and as 12-grams of its words."""

TEXTS = pa.schema(
    [
        ("turns_digest", pa.string()),
        ("sketch", pa.binary(192)),
        ("asked", pa.list_(pa.uint32())),
        ("said", pa.list_(pa.uint32())),
    ]
)
"""Each distinct conversation of a table of samples: a MinHash sketch of its shingles, and the
shingles of its questions and of its answers, ascending."""

TEXT_PAIRS = pa.schema([("text_a", pa.string()), ("text_b", pa.string()), ("permille", pa.int32())])
"""Conversations nearly alike, text_a < text_b (digests of turns): the lesser of the Jaccard
similarities of their questions and of their answers."""

MATCHES = pa.schema(
    [
        (name, pa.string())
        for name in "source key kind benchmark judged held_out relation code".split()
    ]
)
"""Samples of a recipe that match evaluation data: kind is `media` or `text`; judged is `same` or
`undecided`, a question that is asked is the same; `code` is that of the sample's refusal, whatever
it was refused for, or empty."""

LENGTHS = pa.schema(
    [("source", pa.string()), ("key", pa.string()), ("tokens", pa.list_(pa.int32()))]
)
"""Tokens per turn, template pieces included, visual slots excluded."""

SCORES = pa.schema([("of", pa.string()), ("values", pa.list_(pa.int32()))])
"""What a scorer says of each row of a table: of a clip (its id) or a sample (its key), one integer
from 0 to 65,535, or one for each frame of the clip."""

FRAME_SCORES = pa.schema(
    [("key", pa.string()), ("clip", pa.int32()), ("values", pa.list_(pa.int32()))]
)
"""What a scorer says of each stored frame of a clip for a sample that shows it: the sample's key,
the number of the clip in it, and one integer from 0 to 65,535 for each frame."""

TOKENIZERS = pa.schema([("address", pa.string()), ("json", pa.binary())])
"""The tokenizer.json at an address that a recipe names, for plans, which fetch nothing."""

RECEIPTS = pa.schema(
    [
        *((name, pa.string()) for name in "work_id stage version parameters".split()),
        ("inputs", pa.list_(pa.string())),
        *((name, pa.string()) for name in "outputs counts tools".split()),
    ]
)
"""Of snapshots: shards.receipts.Receipt; parameters, outputs and counts are JSON."""

# what is refused is written down with what is needed to find it again
REFUSED = pa.schema(
    [(name, pa.string()) for name in "source record key stage code detail origin".split()]
)

SHARD_INDEX = pa.schema(
    [
        ("position", pa.int64()),
        ("source", pa.string()),
        ("key", pa.string()),
        ("epoch", pa.int32()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("extent", pa.int64()),
        ("crc32", pa.uint32()),
    ]
)
"""One row per packed sample: the extent of its two tar members, and the crc32 of those bytes."""


def table_of(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A table of exactly these columns."""
    # rows in the order given: bytes, and so names, follow from it
    return pa.Table.from_pylist(list(rows), schema=schema)


UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What reading a damaged Parquet file raises: the last of names of columns that are no text."""


def write_table(table: pa.Table) -> bytes:
    """Parquet bytes with page checksums; the same table gives the same bytes."""
    # page checksums (crc32 per page), which readers verify; the footer has none
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_named(data: bytes, where: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a pool's file, or these columns; DamagedData unless its name says its bytes."""
    # content addressing: the name is the digest
    if not where.endswith(f"/{sha256_hex(data)}.parquet"):
        raise DamagedData(
            f"{where}: not the bytes that its name says; restore it, or remove it, the receipt "
            "that names it and snapshots/, and build again"
        )
    return read_table(data, where, columns)


def read_table(data: bytes, where: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in Parquet bytes, checksums verified; DamagedData names `where`."""
    try:
        source = pa.BufferReader(data)
        return pq.ParquetFile(source, page_checksum_verification=True).read(columns=columns)
    except UNREADABLE as error:
        raise DamagedData(f"{where}: damaged Parquet: {error}; delete it and rebuild") from error
