"""s3:// and gs:// addresses through fsspec: one object -> one file, in pieces, resumed, bounded.

The store's credentials and endpoint are the user's (AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST and the
like). An object that changes while it is read is started again, so that two versions are never
spliced.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import fsspec

from pipeline.fetch.part_version import read_version, write_version
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem
from pipeline.names import in_order
from shards.errors import UserError, escaped
from shards.retry import Patience, of_store, patiently

SCHEMES = ("s3", "gs")
PIECE = 16 << 20
PATIENCE = Patience()


def pin(address: str) -> list[str]:
    """The objects that a pattern or a plain name stands for."""
    scheme = address.partition(":")[0]
    filesystem, path = _open(address)
    if not any(sign in address for sign in "*?["):
        return [address]

    def glob() -> list[str]:
        try:
            return in_order(f"{scheme}://{name}" for name in filesystem.glob(path))
        except Exception as error:  # every file system has errors of its own
            reason = escaped((str(error).splitlines() or [repr(error)])[0][:200])
            raise of_store(
                UserError(
                    f"{address}: the store does not list it: {reason}; check its credentials and "
                    "endpoint"
                ),
                error,
            ) from error

    found = patiently(glob, PATIENCE)
    if not found:
        raise UserError(f"{address}: no object fits the pattern; correct it")
    return found


def _open(address: str) -> tuple[Any, str]:
    if "::" in address or "@" in address or address.count("://") != 1:
        # fsspec would read another address behind the first one, or take a host from it
        raise UserError(f"{escaped(address)}: not of the form s3://BUCKET/NAME or gs://BUCKET/NAME")
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UserError(f"{address}: {error}; install it to read this store") from error
    return filesystem, path


def size(address: str) -> int | None:
    """Bytes of an object; None where the store does not tell."""
    filesystem, path = _open(address)
    try:
        found: int | None = filesystem.size(path)
    except Exception:  # every file system has errors of its own; whoever downloads it will tell
        return None
    return found


def download(address: str, part: Path, limits: Limits) -> None:
    """Complete `part` with the bytes of the object; raises FetchProblem."""
    deadline = time.monotonic() + limits.max_seconds
    filesystem, path = _open(address)

    def attempt() -> None:
        try:
            _attempt(filesystem, path, part, limits, deadline)
        except FetchProblem:
            raise
        except (FileNotFoundError, PermissionError) as error:
            raise FetchProblem("FETCH_REFUSED", f"{address}: {error}") from error
        except Exception as error:  # every file system has errors of its own
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            problem = FetchProblem("FETCH_UNREACHABLE", f"{address}: {error}")
            raise of_store(problem, error) from error

    patiently(attempt, limits, deadline)


def _attempt(filesystem: Any, path: str, part: Path, limits: Limits, deadline: float) -> None:
    nbytes, version = _version(filesystem, path)
    if nbytes > limits.max_bytes:
        raise FetchProblem("FETCH_TOO_BIG", f"{path}: {nbytes} bytes")
    same = read_version(part) == version
    with part.open("r+b" if part.exists() else "xb") as file:
        file.truncate(min(file.seek(0, 2), nbytes) if same else 0)
        write_version(part, version)
        at = file.seek(0, 2)
        while at < nbytes:
            began = time.monotonic()
            data = filesystem.cat_file(path, start=at, end=min(at + PIECE, nbytes))
            file.write(data)
            at += len(data)
            now = time.monotonic()
            if not data:
                raise OSError(f"no bytes at {at} of {nbytes}")
            if now > deadline or len(data) < limits.min_speed * (now - began - limits.window):
                raise FetchProblem("FETCH_TOO_SLOW", f"{path}: {at} of {nbytes} bytes")
    if _version(filesystem, path) != (nbytes, version):
        part.unlink()
        raise OSError("it changed while it was read")
    write_version(part, "")


def _version(filesystem: Any, path: str) -> tuple[int, str]:
    """(size, what changes when the object does), asked anew."""
    filesystem.invalidate_cache()
    known = filesystem.info(path)
    named = [str(known[key]) for key in ("ETag", "etag", "generation", "md5Hash") if key in known]
    if not named:
        raise FetchProblem("FETCH_REFUSED", f"{path}: the store gives no version of it")
    return int(known["size"]), " ".join(named)
