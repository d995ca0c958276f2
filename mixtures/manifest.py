"""The manifest: a recipe resolved over a pool, named by content, enough to draw every sample.

`manifest.json` is canonical JSON of integers and strings; beside it `plan/<sha256>.npy` holds each
source's kept samples sorted by key, and `plan/<sha256>.json` the tokenizer. `manifest_id` is the
sha256 of the JSON without `manifest_id` and `tool`, so it does not depend on how a pool is cut into
parts, where it lies, or which version wrote it.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.canonical import CANONICAL_ALGO, NONE_SHOWN, SHOWN
from mixtures.joining import JOIN_ALGO, MEMBER
from mixtures.layout import LAYOUT_VERSION, LayoutConfig, View
from mixtures.order import BATCH_ALGO, DEAL_ALGO, PATCHES_PER_TOKEN, Order
from mixtures.packing import PACK_ALGO
from mixtures.permutation import PERMUTATION_ALGO, ROUNDS
from mixtures.recipe import PackRule
from mixtures.schedule import SCHEDULE_ALGO, Schedule, period_of, ranks_of
from mixtures.tables import ROW, npy_bytes, npy_name, open_npy, tokenizer_name
from mixtures.text import TEXT_VERSION, TextCodec
from shards.errors import DamagedData, UserError
from shards.ids import canonical_json, sha256_hex
from shards.store import Store

MANIFEST_VERSION = 2
DIGESTED_POSITIONS = 65_536
ALGORITHMS: dict[str, dict[str, str | int]] = {
    "schedule": {"algo": SCHEDULE_ALGO},
    "permutation": {"algo": PERMUTATION_ALGO, "rounds": ROUNDS},
    "batch": {"algo": BATCH_ALGO, "deal": DEAL_ALGO, "patches_per_token": PATCHES_PER_TOKEN},
    "pack": {"algo": PACK_ALGO},
    "layout": {"version": LAYOUT_VERSION},
    "text": {"version": TEXT_VERSION},
}
"""What a manifest names and this version must know; a manifest of another is refused."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest and its tables.

    `tables` holds per source its kept samples, rows of ROW sorted by key; `source_at` the source at
    every position of a finite order; `packs_per_window` those inside `length`; `members` per source
    the conversations of its joined samples, rows of MEMBER sorted by key (empty: no recipe joins);
    `copies` the clips that are shown in place of others, rows of SHOWN sorted by clip.
    """

    value: dict[str, Any]
    tables: list[NDArray[np.void]]
    source_at: NDArray[np.unsignedinteger] | None
    packs_per_window: NDArray[np.uint32]
    tokenizer: bytes
    members: list[NDArray[np.void]] = field(default_factory=list)
    copies: NDArray[np.void] = field(default_factory=lambda: NONE_SHOWN)

    @property
    def manifest_id(self) -> str:
        return str(self.value["manifest_id"])

    @property
    def seed(self) -> int:
        return int(self.value["seed"])

    @property
    def length(self) -> int:
        """Samples in an epoch of the mixture, and what `pack` writes."""
        return int(self.value["length"])

    @property
    def is_finite(self) -> bool:
        """Whether the order ends at `length` (repeat and budget recipes)."""
        return bool(self.value["recipe"]["ratio"] != "weight")

    @property
    def max_shard_bytes(self) -> int | None:
        bound: int | None = self.value["recipe"]["max_shard_bytes"]
        return bound

    @cached_property
    def names(self) -> list[str]:
        return [source["name"] for source in self.value["sources"]]

    @cached_property
    def content_ids(self) -> list[str]:
        return [source["content_id"] for source in self.value["sources"]]

    @cached_property
    def schedule(self) -> Schedule:
        stages = self.value["schedule"]["stages"]
        starts = tuple(stage["start"] for stage in stages)
        if self.source_at is not None:
            return Schedule(starts, (ranks_of(self.source_at, stages[0]["quotas"]),))
        return Schedule(starts, tuple(period_of(stage["quotas"]) for stage in stages))

    @property
    def pack(self) -> PackRule:
        rule = self.value["pack"]
        return PackRule(tokens=rule["tokens"], patches=rule["patches"], window=rule["window"])

    @property
    def view(self) -> View:
        return View(**self.value["frames"])

    @property
    def layout(self) -> LayoutConfig:
        values = {name: v for name, v in self.value["layout"].items() if name != "version"}
        return LayoutConfig(**values)

    @cached_property
    def codec(self) -> TextCodec:
        """The tokenizer and template that every length was counted with."""
        rule = self.value["text"]
        name = tokenizer_name(rule["tokenizer_sha256"])
        return TextCodec(self.tokenizer, rule["template"], name)

    def members_of(self, source: str, key: str) -> list[str]:
        """The keys of the conversations that a sample is made of; its own, if it is not joined."""
        if not self.members:
            return [key]
        table, wanted = self.members[self.names.index(source)], bytes.fromhex(key)
        first = bisect_left(table, wanted, key=_key_of)
        stop = bisect_right(table, wanted, first, key=_key_of)
        return [row["member"].tobytes().hex() for row in table[first:stop]] or [key]

    def shown(self, clip_ids: Sequence[str]) -> Sequence[str]:
        """The clips that stand for these of one sample; its own, where two would become one."""
        found = (
            [self._stands_for(clip_id) for clip_id in clip_ids] if len(self.copies) else clip_ids
        )
        return found if len(set(found)) == len(found) else clip_ids

    def _stands_for(self, clip_id: str) -> str:
        wanted = bytes.fromhex(clip_id)
        at = bisect_left(self.copies, wanted, key=_clip_of)
        if at == len(self.copies) or _clip_of(self.copies[at]) != wanted:
            return clip_id
        return str(self.copies[at]["shown"].tobytes().hex())


def load_manifest(path: str | Path) -> Manifest:
    """Read and verify a manifest and the files beside it; the errors name what differs."""
    folder, _, name = str(path).rpartition("/")
    store = Store(folder or "/" * str(path).startswith("/") or ".")
    try:
        value = json.loads(store.get(name))
        check_version(value, str(path))
        if identity(value) != value["manifest_id"]:
            raise DamagedData(f"{path}: its content is not what its manifest_id says; plan again")
        manifest = Manifest(
            value=value,
            tables=[_kept(store, source) for source in value["sources"]],
            source_at=_table(store, value["schedule"]["table"]),
            packs_per_window=open_npy(store, npy_name(value["packs_per_window"])),
            tokenizer=_tokenizer(store, value["text"]["tokenizer_sha256"]),
            members=[_members(store, each) for each in value["sources"] if "join" in value],
            copies=_copies(store, value.get("canonical")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise DamagedData(f"{path}: not a manifest ({error!r}); plan again") from error
    if order_digest(manifest) != manifest.value["order_digest"]:
        raise UserError(f"{path}: this version draws another order; use the one that wrote it")
    return manifest


def write_manifest(manifest: Manifest, folder: str) -> None:
    """Tables first, `manifest.json` last."""
    store = Store(folder)
    digests = [source["kept"]["table"] for source in manifest.value["sources"]]
    arrays: dict[str, NDArray[Any]] = dict(zip(digests, manifest.tables, strict=True))
    arrays[manifest.value["packs_per_window"]] = manifest.packs_per_window
    if manifest.source_at is not None:
        arrays[manifest.value["schedule"]["table"]] = manifest.source_at
    for source, members in zip(manifest.value["sources"], manifest.members, strict=False):
        arrays[source["kept"]["members"]] = members
    if "canonical" in manifest.value:
        arrays[manifest.value["canonical"]["table"]] = manifest.copies
    for digest, array in arrays.items():
        store.put(npy_name(digest), npy_bytes(array))
    store.put(tokenizer_name(manifest.value["text"]["tokenizer_sha256"]), manifest.tokenizer)
    store.put("manifest.json", canonical_json(manifest.value))


def _kept(store: Store, source: Mapping[str, Any]) -> NDArray[np.void]:
    table = open_npy(store, npy_name(source["kept"]["table"]))
    if table.dtype != ROW or len(table) != source["kept"]["samples"]:
        raise DamagedData(
            f"{store.url}: the table of {source['name']!r} is not that of its kept samples; "
            "plan again"
        )
    return table


def _members(store: Store, source: Mapping[str, Any]) -> NDArray[np.void]:
    members = open_npy(store, npy_name(source["kept"]["members"]))
    if members.dtype != MEMBER:
        raise DamagedData(
            f"{store.url}: the members of {source['name']!r} are another table; plan again"
        )
    return members


def _copies(store: Store, rule: Mapping[str, Any] | None) -> NDArray[np.void]:
    copies = open_npy(store, npy_name(rule["table"])) if rule else NONE_SHOWN
    if copies.dtype != SHOWN:
        raise DamagedData(f"{store.url}: the clips shown for others are another table; plan again")
    return copies


def _clip_of(row: np.void) -> bytes:
    clip: bytes = row["clip"].tobytes()
    return clip


def _key_of(row: np.void) -> bytes:
    key: bytes = row["key"].tobytes()
    return key


def _table(store: Store, digest: str) -> NDArray[np.unsignedinteger] | None:
    return open_npy(store, npy_name(digest)) if digest else None


def _tokenizer(store: Store, digest: str) -> bytes:
    name = tokenizer_name(digest)
    data = store.get(name)
    if sha256_hex(data) != digest:
        raise DamagedData(f"{store.path(name)}: its bytes are damaged; restore it, or plan again")
    return data


def check_version(value: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a manifest whose rules this version does not know."""
    if not isinstance(value, dict) or "manifest_version" not in value:
        raise DamagedData(f"{where}: not a manifest; plan again")
    rules: dict[str, Any] = {"manifest_version": MANIFEST_VERSION}
    if value["manifest_version"] == MANIFEST_VERSION:
        rules |= {
            f"{part}.{name}": v for part, own in ALGORITHMS.items() for name, v in own.items()
        }
        rules |= {"join.algo": JOIN_ALGO} if "join" in value else {}
        rules |= {"canonical.algo": CANONICAL_ALGO} if "canonical" in value else {}
    for path, known in rules.items():
        found: Any = value
        for name in path.split("."):
            found = found[name]
        if found != known:
            raise UserError(
                f"{where}: {path} is {found!r}, this version knows {known!r}; "
                "use the version that wrote it, or plan again"
            )


def identity(value: Mapping[str, Any]) -> str:
    """The manifest_id of a manifest's JSON value."""
    named = {name: v for name, v in value.items() if name not in ("manifest_id", "tool")}
    return sha256_hex(canonical_json(named))


def order_digest(manifest: Manifest) -> str:
    """sha256 of the keys at the first positions: the order as a fact, not as a promise."""
    return sha256_hex(Order(manifest).keys(0, min(manifest.length, DIGESTED_POSITIONS)))
