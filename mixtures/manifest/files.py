"""Manifests as files: tables written first, everything verified on reading, named by content.

    OUT/manifest.json          canonical JSON of integers and strings
    OUT/plan/<sha256>.npy      per source its kept samples sorted by key; the other tables of a plan
    OUT/plan/<sha256>.json     the tokenizer that counted the tokens

`manifest_id` is the sha256 of the JSON without `manifest_id` and `tool`, so it does not depend on
how a pool is cut into parts, where it lies, or which version wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.contents import Contents, KeptSet, manifest_id_of
from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.draws import Draws
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.npy_tables import (
    MEMBER,
    NONE_SHOWN,
    ROW,
    SHOWN,
    npy_bytes,
    npy_name,
    open_npy,
    tokenizer_name,
)
from mixtures.versions import ALGORITHMS, CANONICAL_ALGO, JOIN_ALGO, MANIFEST_VERSION
from shards.errors import DamagedData, UserError
from shards.ids import canonical_json, sha256_hex
from shards.store import Store

MANIFEST = "manifest.json"
"""What a build and a plan call a manifest in its folder."""
LOCK = "recipe.lock.json"
"""What a build writes beside it: the recipe as resolved (pipeline.lock)."""
DIGESTED_POSITIONS = 65_536
"""Positions from the start on whose keys `order_digest` covers."""


def write_manifest(manifest: Manifest, folder: str, name: str = MANIFEST) -> None:
    """Tables first, the manifest `name` last."""
    store = Store(folder)
    # the manifest comes last: a folder without it is no manifest, whatever else is there
    for digest, array in _arrays(manifest).items():
        store.put(npy_name(digest), npy_bytes(array))
    store.put(tokenizer_name(manifest.contents.text.tokenizer_sha256), manifest.tokenizer)
    store.put(name, canonical_json(manifest.contents.to_json()))


def _arrays(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """The arrays of a manifest by the digest that its JSON names them with."""
    contents = manifest.contents
    kept = [source.kept for source in contents.sources]
    named: list[tuple[str | None, NDArray[Any]]] = [
        (contents.packs_per_window, manifest.packs_per_window),
        (contents.schedule.table, manifest.source_at),
        *((own.table, table) for own, table in zip(kept, manifest.tables, strict=True)),
        # empty where the recipe does not join
        *((own.members, table) for own, table in zip(kept, manifest.members, strict=False)),
        *((own.joined_by, table) for own, table in zip(kept, manifest.joined_by, strict=False)),
    ]
    if contents.canonical is not None:
        named.append((contents.canonical.table, manifest.copies))
    return {digest: table for digest, table in named if digest is not None}


def manifest_file(path: str | Path) -> str:
    """The file of a manifest that is named by it, or by the folder of its build."""
    text = str(path)
    return text if text.endswith(".json") else f"{text.rstrip('/')}/{MANIFEST}"


def load_manifest(path: str | Path) -> Manifest:
    """Read and verify a manifest (see `manifest_file`) and the files beside it; the errors name
    what differs."""
    path = manifest_file(path)
    folder, _, name = str(path).rpartition("/")
    store = Store(folder or "/" * str(path).startswith("/") or ".")
    try:
        manifest = _read(store, name, str(path))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise DamagedData(f"{path}: not a manifest ({error!r}); plan again") from error
    # the first 65,536 positions are drawn again: code that draws otherwise is found out here
    if order_digest(manifest) != manifest.contents.order_digest:
        raise UserError(f"{path}: this version draws another order; use the one that wrote it")
    return manifest


def _read(store: Store, name: str, where: str) -> Manifest:
    data = store.get(name)
    value = json.loads(data)
    # the version first: another one may say anything else in another way
    _check_version(value, where)
    if manifest_id_of(value) != value["manifest_id"]:
        raise DamagedData(f"{where}: its content is not what its manifest_id says; plan again")
    # from here on every key is known, and of its type
    contents = Contents.from_json(data, where)
    kept = [(source.name, source.kept) for source in contents.sources]
    joined = kept if contents.join is not None else []
    copies = contents.canonical
    # tables are verified by the digests that the contents name them with
    return Manifest.of(
        contents,
        tables=[_kept(store, *each) for each in kept],
        source_at=_source_at(store, contents),
        packs_per_window=open_npy(store, npy_name(contents.packs_per_window)),
        tokenizer=_tokenizer(store, contents.text.tokenizer_sha256),
        members=[_members(store, *each) for each in joined],
        joined_by=[_joined_by(store, *each) for each in joined],
        copies=NONE_SHOWN if copies is None else _copies(store, copies.table),
    )


def _check_version(value: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a manifest whose rules this version does not know."""
    if not isinstance(value, dict) or "manifest_version" not in value:
        raise DamagedData(f"{where}: not a manifest; plan again")
    # a rule of another name would give another order in silence
    for path, known in _known_rules(value).items():
        # `a.b` is the key b of the mapping a
        stated: Any = value
        for name in path.split("."):
            stated = stated[name]
        if stated != known:
            raise UserError(
                f"{where}: {path} is {stated!r}, this version knows {known!r}; "
                "use the version that wrote it, or plan again"
            )


def _known_rules(value: Mapping[str, Any]) -> dict[str, str | int]:
    """`section.key` -> what this version writes there, for every rule that a manifest names."""
    # of another version only that is said: its other keys may mean anything
    rules: dict[str, str | int] = {"manifest_version": MANIFEST_VERSION}
    if value["manifest_version"] == MANIFEST_VERSION:
        rules |= {
            f"{part}.{name}": v for part, own in ALGORITHMS.items() for name, v in own.items()
        }
        rules |= {"join.algo": JOIN_ALGO} if "join" in value else {}
        rules |= {"canonical.algo": CANONICAL_ALGO} if "canonical" in value else {}
    return rules


def _kept(store: Store, name: str, kept: KeptSet) -> NDArray[np.void]:
    table = open_npy(store, npy_name(kept.table))
    if table.dtype != ROW or len(table) != kept.samples:
        raise DamagedData(
            f"{store.url}: the table of {name!r} is not that of its kept samples; plan again"
        )
    return table


def _source_at(store: Store, contents: Contents) -> NDArray[np.unsignedinteger]:
    table = open_npy(store, npy_name(contents.schedule.table))
    if table.dtype.kind != "u" or table.shape != (contents.length,):
        raise DamagedData(f"{store.url}: the table of the schedule is another one; plan again")
    return table


def _members(store: Store, name: str, kept: KeptSet) -> NDArray[np.void]:
    members = open_npy(store, npy_name(str(kept.members)))
    if members.dtype != MEMBER:
        raise DamagedData(f"{store.url}: the members of {name!r} are another table; plan again")
    return members


def _joined_by(store: Store, name: str, kept: KeptSet) -> NDArray[np.void]:
    ids = open_npy(store, npy_name(str(kept.joined_by)))
    if ids.dtype != np.dtype("V16") or len(ids) != kept.samples:
        raise DamagedData(f"{store.url}: what {name!r} is joined by is another table; plan again")
    return ids


def _copies(store: Store, digest: str) -> NDArray[np.void]:
    copies = open_npy(store, npy_name(digest))
    if copies.dtype != SHOWN:
        raise DamagedData(f"{store.url}: the clips shown for others are another table; plan again")
    return copies


def _tokenizer(store: Store, digest: str) -> bytes:
    name = tokenizer_name(digest)
    data = store.get(name)
    if sha256_hex(data) != digest:
        raise DamagedData(f"{store.path(name)}: its bytes are damaged; restore it, or plan again")
    return data


def order_digest(order: DrawOrder) -> str:
    """sha256 of the keys at the first positions: the order as a fact, not as a promise."""
    return sha256_hex(Draws(order).keys(0, min(order.length, DIGESTED_POSITIONS)))
