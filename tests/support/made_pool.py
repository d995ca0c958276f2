"""A small pool committed table by table, as the stages commit it, for tests of what is planned."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mixtures.manifest.files import load_manifest
from mixtures.tokens.text import TextCodec, train_tokenizer
from shards.errors import DamagedData, UserError
from shards.ids import canonical_json, sample_key, sha256_hex
from shards.index import (
    CLIPS,
    FINGERPRINTS,
    LEAKS,
    LENGTHS,
    MEDIA,
    NAMED,
    PAIRS,
    REFERENCES,
    REFUSED,
    SAMPLES,
    UNREAD,
    table_of,
)
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import Work
from shards.sample import Turn, digest_turns, turns_to_json

TOKENIZER = train_tokenizer(["which digit is this? seven, eight, nine"] * 4, 320)
WORDS = "which digit is this seven eight nine".split()


def name_of(what: str) -> str:
    """A clip id, or any other id of 32 hex, out of a word."""
    return sha256_hex(what.encode())[:32]


@dataclass
class MadeSample:
    text: str
    clips: list[str] = field(default_factory=list)
    licence: str = "MIT"
    answer: str = "seven"

    @property
    def turns(self) -> tuple[Turn, ...]:
        media = tuple((i, 0) for i in range(len(self.clips)))
        return (
            Turn(role="user", text=self.text, media=media),
            Turn(role="assistant", text=self.answer),
        )

    @property
    def key(self) -> str:
        return sample_key(digest_turns(self.turns), [name_of(clip) for clip in self.clips])


def many(source: str, count: int) -> list[MadeSample]:
    """`count` samples of a source, each over an image of its own."""
    return [
        MadeSample(f"{' '.join(WORDS[: 1 + i % 7])} {source} {i}", [f"{source}-{i}"])
        for i in range(count)
    ]


def clip_row(name: str) -> dict[str, Any]:
    """A row of the clip index: names starting with `video` have 8 frames at 2 fps (`video long`:
    12), others are images; `large` in a name doubles its sides."""
    is_video = name.startswith("video")
    frames = (12 if name.startswith("video long") else 8) if is_video else 1
    side = 128 if "large" in name else 64
    return {
        "clip_id": name_of(name),
        "media_digest": sha256_hex(name.encode()),
        "part": "none.tar",
        "offset": 0,
        "extent": 1024,
        "crc32": 0,
        "kind": "video" if is_video else "image",
        "pts": list(range(frames)),
        "time_base": [1, 2],
        "duration": [frames - 1, 2],
        "width": side,
        "height": side,
        "nbytes": [10] * frames,
        "rotation": 0,
        "is_vfr": False,
        "source_fps": [25, 1],
        "colour": "bt709",
        "codec": "mjpeg",
        "container": "jpeg",
        "source_size": [64, 64],
        "differences": [0] * frames,
    }


@dataclass
class MadePool:
    """What the pool is to hold; `make` commits it. `parts` cuts tables into that many receipts."""

    sources: dict[str, list[MadeSample]]
    held_out: dict[str, list[MadeSample]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)
    relation: str = "near"
    judged: str = "same"
    leaks: list[tuple[str, str, str]] = field(default_factory=list)
    rows_refused: int = 1
    profile: Profile = field(default_factory=Profile)

    def make(self, folder: Path, parts: int = 1) -> Pool:
        pool = Pool(str(folder), self.profile)
        for name, samples in (self.sources | self.held_out).items():
            self._admit(pool, name, samples)
        clips = sorted({c for some in self.sources.values() for one in some for c in one.clips})
        for part in range(parts):
            self._decode(pool, clips[part::parts])
        self._compare(pool)
        return pool

    def _admit(self, pool: Pool, name: str, samples: list[MadeSample]) -> None:
        rows = [sample_row(name, one) for one in samples]
        media = [
            {
                "clip_id": name_of(c),
                "media_digest": sha256_hex(c.encode()),
                "kind": "image",
                "address": c,
                "span": None,
            }
            for one in samples
            for c in one.clips
        ]
        refused = [
            refused_row(name, f"bad-{i}", "", "admit", "ROW_NOT_JSON")
            for i in range(self.rows_refused)
        ]
        counts = {
            "records": len(rows) + len(refused),
            "records_refused": len(refused),
            "samples": len(rows),
            "samples_refused": 0,
        }
        tables = {
            "index/samples": table_of(SAMPLES, rows),
            "index/media": table_of(MEDIA, media),
            "refused": table_of(REFUSED, refused),
            "unread": UNREAD.empty_table(),
            "named": NAMED.empty_table(),
        }
        parameters = {"source": name, "revision": name_of(name), "dataset": "d", "licence": "MIT"}
        receipt = pool.commit(Work("admit", "1", parameters, [name]), tables, counts=counts)
        codec = TextCodec(TOKENIZER)
        lengths = [
            {"source": name, "key": one.key, "tokens": codec.count_turns(one.turns)}
            for one in samples
        ]
        table = {f"lengths/{codec.profile_id}": table_of(LENGTHS, lengths)}
        counted = receipt.outputs["index/samples"]
        pool.commit(Work("lengths", "1", {"text_profile": codec.profile_id}, counted), table)

    def _decode(self, pool: Pool, clips: list[str]) -> None:
        tables = {
            "index/fingerprints": FINGERPRINTS.empty_table(),
            "index/clips": table_of(CLIPS, [clip_row(c) for c in clips if c not in self.broken]),
            "refused": table_of(
                REFUSED,
                [
                    refused_row("", "", name_of(c), "decode", self.broken[c])
                    for c in clips
                    if c in self.broken
                ],
            ),
        }
        pool.commit(Work("decode", "1", {}, [name_of(c) for c in clips]), tables)

    def _compare(self, pool: Pool) -> None:
        ends = [sorted((name_of(a), name_of(b))) for a, b in self.pairs]
        pairs = [
            {
                "clip_a": a,
                "clip_b": b,
                "relation": self.relation,
                "distance": 1,
                "judged": self.judged,
            }
            for a, b in sorted(ends)
        ]
        leaks = [
            {
                "clip_id": name_of(clip),
                "benchmark": benchmark,
                "held_out": name_of(held_out),
                "relation": "exact",
                "distance": 0,
                "judged": "same",
            }
            for clip, benchmark, held_out in self.leaks
        ]
        parameters = {
            "sources": {name: name_of(name) for name in self.sources},
            "held_out": {name: name_of(name) for name in self.held_out},
        }
        copies = [
            {
                "clip_id": name_of(clip),
                "reference": name_of(reference),
                "relation": "near",
                "distance": 1,
            }
            for clip, reference in self.copies
        ]
        tables = {
            "clusters": table_of(PAIRS, pairs),
            "leaks": table_of(LEAKS, leaks),
            "references": table_of(REFERENCES, copies),
        }
        pool.commit(Work("compare", "1", parameters, []), tables)


def sample_row(source: str, one: MadeSample) -> dict[str, Any]:
    return {
        "source": source,
        "revision": name_of(source),
        "key": one.key,
        "record": one.text,
        "turns": json.dumps(turns_to_json(one.turns)),
        "turns_digest": digest_turns(one.turns),
        "clip_ids": [name_of(clip) for clip in one.clips],
        "dataset": f"demo/{source}",
        "licence": one.licence,
        "num_turns": 2,
        "num_chars": len(one.text),
    }


def refused_row(source: str, record: str, key: str, stage: str, code: str) -> dict[str, Any]:
    return {
        "source": source,
        "record": record,
        "key": key,
        "stage": stage,
        "code": code,
        "detail": "planted",
        "origin": "here",
    }


def write_recipe(folder: Path, ratios: dict[str, str], *more: str, held_out: str = "") -> Path:
    """A recipe file over sources of a made pool; `ratios` maps a name to e.g. `weight: 2`."""
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(TOKENIZER)
    lines = ["name: made", "seed: 5", f"text: {{tokenizer: {tokenizer}}}", *more]
    if not any(line.startswith("pack_tokens") for line in more):
        lines += ["pack_tokens: 256", "pack_patches: 4096", "pack_window: 32"]
    if not any(line.startswith("frames") for line in more):
        lines += ["frames: {min_area: 4096}"]
    if not any(line.startswith("layout") for line in more):
        lines += ["layout: {slow_frames: 2, timestamps: none}"]
    lines.append("sources:")
    lines += [
        f"  - {{name: {name}, dataset: d, format: f, annotations: a, licence: MIT, {ratio}}}"
        for name, ratio in ratios.items()
    ]
    if held_out:
        lines += ["held_out:", f"  - {{name: {held_out}, format: f, annotations: a}}"]
    path = folder / "recipe.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def check_guarded(manifest: Path, table: Path, part: str) -> None:
    """Fails unless the bytes of `table` and the version of `part` are checked on reading."""
    whole = table.read_bytes()
    table.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedData, match=table.name):
        load_manifest(manifest)
    table.write_bytes(whole)
    value = json.loads(manifest.read_bytes())
    value[part]["algo"] = "other/1"
    manifest.write_bytes(canonical_json(value))
    with pytest.raises(UserError, match=rf"{part}\.algo is 'other/1', this version knows"):
        load_manifest(manifest)
