"""The manifest: a recipe resolved over a pool, named by content, enough to draw every sample.

`manifest.json` is canonical JSON of integers and strings; beside it `plan/<sha256>.npy` holds each
source's kept samples sorted by key, and `plan/<sha256>.json` the tokenizer. `manifest_id` is the
sha256 of the JSON without `manifest_id` and `tool`, so it does not depend on how a pool is cut into
parts, where it lies, or which version wrote it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.layout import LAYOUT_VERSION, LayoutConfig, View
from mixtures.order import Order
from mixtures.packing import PACK_ALGO
from mixtures.permutation import PERMUTATION_ALGO, ROUNDS
from mixtures.recipe import PackRule
from mixtures.schedule import SCHEDULE_ALGO, Schedule, ranks_of, schedule_of
from mixtures.text import TEXT_VERSION, TextCodec
from shards.errors import DamagedData, UserError
from shards.ids import canonical_json, sha256_hex
from shards.store import Store

MANIFEST_VERSION = 1
DIGESTED_POSITIONS = 65_536
ROW = np.dtype(
    [("key", "V16"), ("tokens", "<u4"), ("patches", "<u4"), ("clips", "<u2"), ("frames", "<u4")]
)
"""One kept sample: raw key bytes, tokens in all, patches through the tower, clips, frames."""
ALGORITHMS = {
    ("schedule", "algo"): SCHEDULE_ALGO,
    ("permutation", "algo"): PERMUTATION_ALGO,
    ("permutation", "rounds"): ROUNDS,
    ("pack", "algo"): PACK_ALGO,
    ("layout", "version"): LAYOUT_VERSION,
    ("text", "version"): TEXT_VERSION,
}
"""What a manifest names and this version must know; a manifest of another is refused."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A verified manifest and its tables; `blobs` maps names under the folder to bytes."""

    value: dict[str, Any]
    blobs: dict[str, bytes]

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
        return self.value["recipe"]["unit"] != "weight"

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
    def tables(self) -> list[NDArray[np.void]]:
        """Per source, its kept samples as rows of ROW, sorted by key."""
        return [
            read_npy(self.blobs[npy_name(source["kept"]["table"])])
            for source in self.value["sources"]
        ]

    @cached_property
    def schedule(self) -> Schedule:
        rule = self.value["schedule"]
        quotas = [source["quota"] for source in self.value["sources"]]
        if not self.is_finite:
            return schedule_of(quotas)
        return ranks_of(read_npy(self.blobs[npy_name(rule["table"])]), quotas)

    @cached_property
    def packs_per_window(self) -> NDArray[np.uint32]:
        """Packs of each window inside `length`; empty in a draft."""
        table = self.value.get("packs_per_window")
        return read_npy(self.blobs[npy_name(table)]) if table else np.empty(0, np.uint32)

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
        return TextCodec(self.blobs[name], rule["template"], name)

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read and verify a manifest and the files beside it; the errors name what differs."""
        folder, _, name = str(path).rpartition("/")
        store = Store(folder or "/" * str(path).startswith("/") or ".")
        try:
            value = json.loads(store.get(name))
            if not isinstance(value, dict):
                raise DamagedData(f"{path}: not a manifest; plan again")
            check_version(value, str(path))
            blobs = {wanted: store.get(wanted) for wanted in blob_names(value)}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise DamagedData(f"{path}: not a manifest ({error!r}); plan again") from error
        manifest = cls(value=value, blobs=blobs)
        manifest.verify(str(path))
        return manifest

    def verify(self, where: str) -> None:
        """Raise DamagedData unless id, tables, content ids and drawn order are as written."""
        if identity(self.value) != self.manifest_id:
            raise DamagedData(f"{where}: its content is not what its manifest_id says; plan again")
        for name, data in self.blobs.items():
            digest = name.removeprefix("plan/").partition(".")[0]
            if sha256_hex(data) != digest:
                raise DamagedData(f"{where}: {name} is damaged; restore it, or plan again")
        for source, table in zip(self.value["sources"], self.tables, strict=True):
            if content_id(table) != source["content_id"] or len(table) != source["kept"]["rows"]:
                raise DamagedData(f"{where}: the kept samples of {source['name']!r} differ")
        if order_digest(self) != self.value["order_digest"]:
            raise UserError(f"{where}: this version draws another order; use the one that wrote it")

    def write(self, folder: str) -> None:
        """Tables first, `manifest.json` last."""
        store = Store(folder)
        for name, data in self.blobs.items():
            store.put(name, data)
        store.put("manifest.json", canonical_json(self.value))


def check_version(value: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a manifest whose rules this version does not know."""
    wanted = {(name,): v for name, v in (("manifest_version", MANIFEST_VERSION),)}
    for path, known in (wanted | ALGORITHMS).items():
        found: Any = value
        for name in path:
            found = found[name]
        if found != known:
            raise UserError(
                f"{where}: {'.'.join(path)} is {found!r}, this version knows {known!r}; "
                "use the version that wrote it, or plan again"
            )


def blob_names(value: Mapping[str, Any]) -> list[str]:
    """Names of the files that a manifest needs beside it."""
    tables = [source["kept"]["table"] for source in value["sources"]]
    tables += [value["packs_per_window"], value["schedule"]["table"]]
    names = [npy_name(table) for table in tables if table]
    return [*dict.fromkeys(names), tokenizer_name(value["text"]["tokenizer_sha256"])]


def npy_name(digest: str) -> str:
    return f"plan/{digest}.npy"


def tokenizer_name(digest: str) -> str:
    return f"plan/{digest}.json"


def identity(value: Mapping[str, Any]) -> str:
    """The manifest_id of a manifest's JSON value."""
    named = {name: v for name, v in value.items() if name not in ("manifest_id", "tool")}
    return sha256_hex(canonical_json(named))


def content_id(table: NDArray[np.void]) -> str:
    """The id of a kept set: H over its sorted keys; what keys the order of a source."""
    return sha256_hex(np.ascontiguousarray(table["key"]).tobytes())[:32]


def order_digest(manifest: Manifest) -> str:
    """sha256 of the keys at the first positions: the order as a fact, not as a promise."""
    return sha256_hex(Order(manifest).keys(0, min(manifest.length, DIGESTED_POSITIONS)))


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The `.npy` bytes of an array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_npy(data: bytes) -> NDArray[Any]:
    """The array in `.npy` bytes; DamagedData if they are none."""
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise DamagedData(f"a table of the plan is damaged ({error}); plan again") from error
    return array


def kept_table(rows: Sequence[tuple[str, int, int, int, int]]) -> NDArray[np.void]:
    """Rows of ROW from (key, tokens, patches, clips, frames), sorted by key."""
    return np.array([(bytes.fromhex(row[0]), *row[1:]) for row in sorted(rows)], ROW)


from mixtures.plan import Plan, build_manifest  # noqa: E402

__all__ = ["Manifest", "Plan", "build_manifest"]
