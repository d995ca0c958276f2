"""hf:// addresses: `hf://datasets/ORGANISATION/NAME@REVISION/PATH`, pinned to a commit.

A model's files are named `hf://ORGANISATION/NAME@COMMIT/PATH`: its commit is always written out.

The library finds commits, files and their digests, and keeps the user's token; the bytes come
through pipeline.fetch.http like all others, so that one set of bounds holds. HF_ENDPOINT names the
server, and is trusted as the user's own choice. The library's own retries, which wait as long as a
hub asks, and its calls without a time-out are replaced by shards.retry.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_url,
    set_client_factory,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers
from huggingface_hub.utils._http import default_client_factory

from pipeline.fetch.http import Request
from pipeline.fetch.url_guard import Origin
from pipeline.names import in_order
from shards.errors import UserError, escaped
from shards.retry import Patience, TryAgainError, asked_wait, may_pass, patiently

COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = r"(?!\.{1,2}(?:/|@|$))[\w.-]+"  # no part of an address leads up
_ADDRESS = re.compile(rf"hf://datasets/({_NAME}/{_NAME})(?:@({_NAME}))?/(.+)", re.ASCII)
_MODEL = re.compile(rf"hf://(?!datasets/|spaces/)({_NAME}/{_NAME})@([0-9a-f]{{40}})/(.+)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
PATIENCE = Patience()
STALL = 30  # seconds for connecting, and without any byte
_COMMITS: dict[tuple[str, str, str], str] = {}
_GLOB = re.compile(r"[*?\[]")
Result = TypeVar("Result")


class HubMissingError(UserError):
    """The repository is not there under this id; another id may have it."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository, a dataset's or a model's, at a revision ("" until it is pinned)."""

    repo: str
    revision: str
    path: str
    kind: str = "dataset"

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"hf://{self._place}{self.repo}{at}/{self.path}"

    @property
    def page(self) -> str:
        """The repository's page on the hub."""
        return f"{endpoint()}/{self._place}{self.repo}"

    @property
    def _place(self) -> str:
        return "datasets/" if self.kind == "dataset" else ""


def parse(address: str) -> HubFile:
    """The parts of an hf:// address; UserError shows the form."""
    match, kind = _ADDRESS.fullmatch(address), "dataset"
    if not match:
        match, kind = _MODEL.fullmatch(address), "model"
    if not match or ".." in match[3].split("/"):
        raise UserError(f"{address}: not of the form hf://datasets/ORGANISATION/NAME@REVISION/PATH")
    return HubFile(match[1], match[2] or "", match[3], kind)


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def pin(address: str) -> list[str]:
    """The addresses that a pattern (`*`, `?`, `[`) or a plain path names, at one commit."""
    file = parse(address)
    api = HfApi(endpoint=endpoint())
    commit = file.revision
    if not COMMIT.fullmatch(commit):
        commit = _commit(file, endpoint())
    if not _GLOB.search(file.path):
        return [str(replace(file, revision=commit))]
    folder = file.path[: _GLOB.search(file.path).start()].rpartition("/")[0]  # type: ignore[union-attr]
    entries = _asked(
        file,
        lambda: list(
            api.list_repo_tree(
                file.repo, folder or None, recursive=True, revision=commit, repo_type=file.kind
            )
        ),
    )
    paths = [entry.path for entry in entries if isinstance(entry, RepoFile)]
    found = in_order(path for path in paths if fnmatch.fnmatchcase(path, file.path))
    if not found:
        raise UserError(f"{address}: no file of commit {commit} fits the pattern; correct it")
    return [str(replace(file, revision=commit, path=path)) for path in found]


def _commit(file: HubFile, server: str) -> str:
    """The commit behind a branch, a tag or nothing: one and the same for all of a process."""
    key = (file.repo, file.revision, server)
    if key not in _COMMITS:
        api = HfApi(endpoint=server)
        info = _asked(file, lambda: api.dataset_info(file.repo, revision=file.revision or None))
        _COMMITS[key] = str(info.sha)
    return _COMMITS[key]


def request(address: str) -> tuple[Request, str]:
    """How to get a pinned file, and its sha256 if the hub knows it (large files), else ""."""
    file = parse(address)
    url = hf_hub_url(
        file.repo, file.path, repo_type=file.kind, revision=file.revision, endpoint=endpoint()
    )
    known = _asked(file, lambda: get_hf_file_metadata(url, endpoint=endpoint()))
    if known.commit_hash not in (None, file.revision):
        raise UserError(f"{address}: the hub answers with commit {known.commit_hash}")
    headers = {
        name: value for name, value in build_hf_headers().items() if name.lower() == "authorization"
    }
    etag = known.etag or ""
    return (
        Request(url=url, headers=headers, nbytes=known.size, trusted=Origin.of(endpoint())),
        etag if _SHA256.fullmatch(etag) else "",
    )


def _asked(file: HubFile, ask: Callable[[], Result]) -> Result:
    """The hub's answer, waited for; UserError says in one line what to do about a refusal."""
    return patiently(lambda: _asked_once(file, ask), PATIENCE)


class _BusyError(Exception):
    """No answer, or one that may change; an error that the library's own retries do not know."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Once(httpx2.Client):
    """What the library asks with: each request once, within a time."""

    def request(self, *values: Any, **options: Any) -> httpx2.Response:
        if options.get("timeout") is None:  # which would wait without end
            options["timeout"] = STALL
        try:
            answer = super().request(*values, **options)
        except httpx2.TransportError as error:
            raise _BusyError(str(error) or type(error).__name__) from error
        if may_pass(answer.status_code):
            raise _BusyError(f"it answers {answer.status_code}", asked_wait(answer.headers))
        return answer


@contextmanager
def _once() -> Iterator[None]:
    """The library asks once; outside of this it is as its other users know it."""
    hooks = default_client_factory().event_hooks
    set_client_factory(lambda: _Once(event_hooks=hooks, follow_redirects=True, timeout=STALL))
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


def _asked_once(file: HubFile, ask: Callable[[], Result]) -> Result:
    page = file.page
    try:
        with _once():
            return ask()
    except GatedRepoError as error:
        raise UserError(f"{file}: gated; accept its terms at {page} and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise HubMissingError(
            f"{file}: no such {file.kind} at {page}; ids move, look it up"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{file}: no such revision; correct it") from error
    except EntryNotFoundError as error:
        raise UserError(f"{file}: no such file at this revision; see {page}/tree/main") from error
    except Exception as error:  # a hub's answer leads its library into errors of every class
        reason = escaped((str(error).splitlines() or [type(error).__name__])[0][:150])
        failed = UserError(f"{file}: the hub at {endpoint()} fails: {reason}; try again")
        if isinstance(error, _BusyError):
            raise TryAgainError(failed, error.wait) from error
        raise failed from error
