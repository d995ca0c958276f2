"""Addresses -> local files, by content: the only way in for annotations, archives and media.

    /a/path or file         where it is, as it is
    path%:/a/path           the same where its name is no text: found by a pattern
    hf://datasets/O/N@C/P   a file of a dataset repository at commit C    pipeline.fetch.hub
    https://host/path       a public server                              pipeline.fetch.http
    s3://..., gs://...      an object store                              pipeline.fetch.object_store

What was fetched lies in the cache of this machine (SLOWFAST_CACHE, else ~/.cache/slowfast-mix):
`files/<sha256>/<name>`, and `addresses/<H(address)>.json` saying which digest an address had when
it was fetched. An address is asked once: its bytes are the same for every recipe from then on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from pipeline.fetch import hub, object_store
from pipeline.fetch.digest_cache import Digests, cache
from pipeline.fetch.http import Request, check_first_bytes, download
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem, check_address
from pipeline.names import in_order, printable
from shards.envelope import Envelope
from shards.errors import UserError
from shards.ids import sha256_file, short_hash
from shards.store import Store

LIMITS = Limits()
_QUOTED = "path%:"
_ENTRY = Envelope(schema="slowfast-mix/fetched/2", if_damaged="remove it", if_outdated="remove it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """The bytes at an address as a local file; `digest` is "" for a file that nobody hashed yet."""

    address: str
    path: Path
    digest: str
    nbytes: int


def is_remote(address: str) -> bool:
    return "://" in address


def resolve(path: str, key: str) -> Path:
    """The absolute local path of a recipe's file or folder; UserError says which `key` named it."""
    plain = os.fsdecode(unquote_to_bytes(path.removeprefix(_QUOTED))) if is_quoted(path) else path
    file = Path(plain).expanduser().absolute()
    if not path or not file.exists():
        raise UserError(f"{file}: no such file or folder, named by {key}; correct the path")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file}: not readable, named by {key}; give rights to read it")
    return file


def path_of(address: str, key: str) -> Path:
    """The local path of the one file that a recipe names; at an address it is fetched.

    UserError says which `key` named what is not there, or several files.
    """
    if not is_remote(address):
        return resolve(address, key)
    found = pin(address, key)
    if len(found) != 1:
        raise UserError(f"{address}: {len(found)} files, named by {key}; name one of them")
    return local(found[0]).path


def is_quoted(path: str) -> bool:
    """Whether it is the address of a local file whose name is no text."""
    return path.startswith(_QUOTED)


def _address(path: Path) -> str:
    """The path as an address; one that is no text has its bytes spelled as on the web."""
    plain = str(path)
    if printable(plain) == plain:
        return plain
    return _QUOTED + quote_from_bytes(os.fsencode(path))


def pin(address: str, key: str) -> list[str]:
    """The files that an address of a recipe names, patterns expanded, hub revisions pinned.

    Nothing is fetched. UserError names the `key` of an address that leads nowhere.
    """
    scheme = address.partition("://")[0] if is_remote(address) else ""
    if scheme == "hf":
        return hub.pin(address)
    if scheme in object_store.SCHEMES:
        return object_store.pin(address)
    if scheme == "https":
        try:
            check_address(address)
        except FetchProblem as problem:
            raise UserError(f"{address}: {problem.detail}, named by {key}") from problem
        return [address]
    if scheme:
        raise UserError(
            f"{address}: named by {key}; an address starts with hf://, https://, s3:// or gs://"
        )
    if any(sign in address for sign in "*?[") and not Path(address).expanduser().exists():
        pattern = Path(address).expanduser().absolute()
        found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
        paths = in_order(str(path) for path in found)
        if not paths:
            raise UserError(f"{address}: no file fits the pattern, named by {key}; correct it")
        return [_address(resolve(path, key)) for path in paths]
    return [str(resolve(address, key))]


def local(address: str) -> Local:
    """The bytes of a pinned address as a file of this machine, fetched if they are not there.

    UserError says in one line why an address cannot be fetched.
    """
    if not is_remote(address):
        path = resolve(address, "the pool's index")
        nbytes = path.stat().st_size if path.is_file() else 0
        return Local(address=address, path=path, digest="", nbytes=nbytes)
    try:
        return fetched(address)
    except FetchProblem as problem:
        raise UserError(
            f"{address}: {problem.code}: {problem.detail}; try again, or correct the address"
        ) from problem


def here(address: str) -> Local | None:
    """As `local`, or None where the address was not fetched yet: nothing is."""
    return _known(_entry(address)) if is_remote(address) else local(address)


def fetched(address: str, limits: Limits = LIMITS, *, media: bool = False) -> Local:
    """As `local`, for a remote address; raises FetchProblem. `media` refuses all but media."""
    entry = _entry(address)
    return _known(entry) or _fetch(address, entry, limits, media)


def _entry(address: str) -> Path:
    """Where it stands which digest an address had when it was fetched."""
    return cache() / "addresses" / f"{short_hash(address)}.json"


def _known(entry: Path) -> Local | None:
    """What was fetched before, if its file is still there and has the digest that it had then.

    An entry that is not as it was written is none: the address is fetched again.
    """
    try:
        known = _ENTRY.unseal(entry.read_bytes(), str(entry))
    except (FileNotFoundError, UserError):
        return None
    name, digest = str(known["name"]), str(known["digest"])
    if short_hash(known["address"]) != entry.stem or not _is_plain(name, digest):
        return None
    path, hashed = cache() / "files" / digest / name, Digests(["fetched", digest, name])
    if not path.is_file() or hashed.of(path) != digest:
        return None
    hashed.save()
    return Local(address=known["address"], path=path, digest=digest, nbytes=known["nbytes"])


def _is_plain(name: str, digest: str) -> bool:
    """Whether both lead nowhere but into the cache."""
    return PurePosixPath(name).name == name and re.fullmatch(r"[0-9a-f]{64}", digest) is not None


def _fetch(address: str, entry: Path, limits: Limits, media: bool) -> Local:
    """Download, check, then name by content; the entry comes last."""
    part = cache() / "parts" / entry.stem
    part.parent.mkdir(parents=True, exist_ok=True)
    with _alone(part), _room(part):
        known = _known(entry)
        if known:
            return known
        digest = _into(address, part, limits)
        check_first_bytes(part, address, media=media)
        actual = sha256_file(part)
        if digest and actual != digest:
            part.unlink()
            raise FetchProblem("FETCH_CHANGED", f"sha256 {actual}, the hub names {digest}")
        name = _file_name(address)
        final = cache() / "files" / actual / name
        final.parent.mkdir(parents=True, exist_ok=True)
        nbytes = part.stat().st_size
        value = {"address": address, "digest": actual, "name": name, "nbytes": nbytes}
        with part.open("rb") as opened:
            os.fsync(opened.fileno())
        part.replace(final)
        Store(entry.parent).put(entry.name, _ENTRY.seal(value))
    return Local(address=address, path=final, digest=actual, nbytes=nbytes)


def _into(address: str, part: Path, limits: Limits) -> str:
    """Complete the part; the sha256 that it must have, or "" where nobody names one."""
    scheme = address.partition("://")[0]
    if scheme in object_store.SCHEMES:
        object_store.download(address, part, limits)
        return ""
    request, digest = hub.request(address) if scheme == "hf" else (Request(url=address), "")
    download(request, part, limits)
    return digest


def _file_name(address: str) -> str:
    """The last part of an address, which says what is in the file: .jsonl, .parquet, .tar.gz."""
    path = hub.parse(address).path if address.startswith("hf://") else urlsplit(address).path
    name = PurePosixPath(path).name
    plain = "".join(sign if sign.isalnum() or sign in "._-+(),=" else "_" for sign in name)
    return plain[-150:] if plain.strip(".") else "file"


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """One process at a time fetches an address; the others then find it there."""
    with part.with_name(part.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _room(part: Path) -> Iterator[None]:
    """A full disk is the user's to mend."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        free = shutil.disk_usage(part.parent).free
        raise UserError(
            f"{part.parent}: the disk is full ({free} bytes left); set SLOWFAST_CACHE elsewhere"
        ) from error
