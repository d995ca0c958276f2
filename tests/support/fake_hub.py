"""A hub on loopback, as far as huggingface_hub asks: commits, trees, files, redirects. The same
files are those of a dataset and of a model of one name.

Large files are answered by a redirect to another path, as by a CDN, with their sha256 as linked
etag; small ones directly, with their git object id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support import flaky_server
from tests.support.flaky_server import Handler, Server

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "maker/films"
LARGE = 1000


class Hub(Server):
    """`files` by path; `lies` are answered instead of the bytes; `drops` cuts first answers.

    `busy` holds the statuses of the next answers by method, sent with `headers`.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.RequestHandlerClass = HubHandler
        self.files = files
        self.lies: dict[str, bytes] = {}
        self.drops: set[str] = set()
        self.gated = False
        self.busy: dict[str, list[int]] = {}
        self.headers: dict[str, str] = {}


class HubHandler(Handler):
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.calls[path] += 1
        self.server.ranges.append(self.headers.get("Range", ""))
        if busy := self.server.busy.get(self.command):
            return self.answer(busy.pop(0), b"", **self.server.headers)
        if path.startswith("/cdn/"):
            return self.send_file(path.removeprefix("/cdn/"))
        if f"/{REPO}/" not in path and not path.endswith(f"/{REPO}"):
            return self.refuse(404, "RepoNotFound")
        if self.server.gated and self.headers.get("Authorization") != "Bearer right":
            return self.refuse(403, "GatedRepo")
        if path.startswith("/api/"):
            return self.api(path.partition(f"/{REPO}")[2])
        return self.resolve(path.partition(f"/{REPO}/resolve/")[2])

    do_HEAD = do_GET

    def answer(self, status: int, data: bytes = b"", cut: int | None = None, **more: str) -> None:
        if self.command == "HEAD":
            more = {"Content_Length": str(len(data))} | more
            data = b""
        super().answer(status, data, cut, **more)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"{}", X_Error_Code=code, X_Error_Message=code)

    def api(self, rest: str) -> None:
        """`/revision/REV` or "" for the commit, `/tree/REV/FOLDER` for the files."""
        if rest.startswith("/tree/"):
            folder = "/".join(rest.split("/")[3:])
            entries = [entry(name, data) for name, data in self.server.files.items()]
            found = [one for one in entries if one["path"].startswith(folder)]
            return self.answer(200, json.dumps(found).encode(), Content_Type="application/json")
        if rest not in ("", "/revision/main", f"/revision/{COMMIT}"):
            return self.refuse(404, "RevisionNotFound")
        info = {"id": REPO, "sha": COMMIT, "siblings": [], "tags": [], "private": False}
        return self.answer(200, json.dumps(info).encode(), Content_Type="application/json")

    def resolve(self, rest: str) -> None:
        revision, _, name = rest.partition("/")
        if revision != COMMIT:
            return self.refuse(404, "RevisionNotFound")
        if name not in self.server.files:
            return self.refuse(404, "EntryNotFound")
        data = self.server.files[name]
        known = {"X_Repo_Commit": COMMIT}
        if len(data) < LARGE:
            return self.answer(200, data, ETag=f'"{git_id(data)}"', **known)
        linked = {"X_Linked_Size": str(len(data)), "X_Linked_ETag": f'"{sha256(data)}"'}
        where = f"{self.server.url}/cdn/{name}"
        return self.answer(302, Location=where, ETag=f'"{git_id(data)}"', **known, **linked)

    def etag(self) -> str:
        """The library follows a redirect on one host, so the other path names the sha256 too."""
        name = unquote(self.path).removeprefix("/cdn/")
        return f'"{sha256(self.server.files[name])}"' if name in self.server.files else '""'

    def send_file(self, name: str) -> None:
        data = self.server.files[name]
        if self.command == "GET":
            data = self.server.lies.get(name, data)
        cut = None
        if self.command == "GET" and name in self.server.drops:
            self.server.drops.discard(name)
            cut = len(data) // 2
        self.rest(data, cut)


def entry(name: str, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": git_id(data),
    }
    if len(data) >= LARGE:
        found["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    yield from flaky_server.running(hub)
