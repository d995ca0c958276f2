"""A server on loopback that fails the way servers do: one path per way."""

from __future__ import annotations

import contextlib
import gzip
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

DATA = b"\xff\xd8\xff" + bytes(i * i % 251 for i in range(300_000 - 3))
OTHER = b"\xff\xd8\xff" + bytes(i * i % 241 for i in range(300_000 - 3))
PAGE = b"<!DOCTYPE html><title>Sign in</title>" + b" " * 1000


class Server(ThreadingHTTPServer):
    """Counts requests per path; `ranges` holds the Range headers that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: Counter[str] = Counter()
        self.ranges: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no error of ours."""


AnyServer = TypeVar("AnyServer", bound=Server)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        way, _, argument = self.path[1:].partition("/")
        self.server.calls[self.path] += 1
        self.server.ranges.append(self.headers.get("Range", ""))
        getattr(self, f"way_{way}")(argument, self.server.calls[self.path])

    def start(self) -> int:
        """Where to begin: the range's start if its If-Range holds, else 0."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found and self.headers.get("If-Range") == self.etag() else 0

    def etag(self) -> str:
        return '"one"'

    def answer(self, status: int, data: bytes = b"", cut: int | None = None, **more: str) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "ETag": self.etag()} | {
            name.replace("_", "-"): value for name, value in more.items()
        }
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data[:cut])
        if cut is not None or not headers["Content-Length"]:
            self.close_connection = True

    def rest(self, data: bytes = DATA, cut: int | None = None, **more: str) -> None:
        """200 with all, or 206 with what the range asks for."""
        start = self.start()
        if not start:
            return self.answer(200, data, cut, **more)
        spot = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.answer(206, data[start:], cut, Content_Range=spot, **more)

    def way_good(self, _: str, __: int) -> None:
        self.rest()

    def way_drop(self, after: str, call: int) -> None:
        self.rest(cut=int(after) if call < 4 else None)

    def way_half(self, _: str, __: int) -> None:
        self.answer(200, DATA[: len(DATA) // 2], Content_Length="")

    def way_ignores(self, _: str, call: int) -> None:
        self.answer(200, DATA, 100_000 if call == 1 else None)

    def way_replaced(self, _: str, call: int) -> None:
        tag = '"one"' if call == 1 else '"two"'
        holds = self.headers.get("If-Range") == tag
        if call == 1:
            return self.answer(200, DATA, 100_000, ETag=tag)
        return self.rest(OTHER) if holds else self.answer(200, OTHER, ETag=tag)

    def way_offset(self, _: str, call: int) -> None:
        if call == 1 or not self.headers.get("Range"):
            return self.answer(200, DATA, 100_000 if call == 1 else None)
        spot = f"bytes 5-{len(DATA) - 1}/{len(DATA)}"
        return self.answer(206, DATA[5:], Content_Range=spot)

    def way_unsatisfied(self, _: str, call: int) -> None:
        if self.headers.get("Range"):
            return self.answer(416)
        return self.answer(200, DATA, 100_000 if call == 1 else None)

    def way_weak(self, _: str, call: int) -> None:
        self.answer(200, DATA, 100_000 if call == 1 else None, ETag='W/"one"')

    def way_longer(self, _: str, __: int) -> None:
        self.answer(200, DATA, Content_Length=str(len(DATA) + 9))
        self.close_connection = True

    def way_status(self, argument: str, call: int) -> None:
        status, times, wait = argument.split("-")
        if call <= int(times):
            return self.answer(int(status), b"", Retry_After=wait)
        return self.rest()

    def way_page(self, _: str, __: int) -> None:
        self.answer(200, PAGE, Content_Type="image/jpeg")

    def way_text(self, _: str, __: int) -> None:
        self.answer(200, b"no picture at all", Content_Type="image/jpeg")

    def way_packed(self, _: str, __: int) -> None:
        self.answer(200, gzip.compress(bytes(1 << 20)), Content_Encoding="gzip")

    def way_to(self, address: str, _: int) -> None:
        self.answer(302, Location=address)

    def way_loop(self, _: str, __: int) -> None:
        self.answer(302, Location=f"{self.server.url}/loop/")

    def way_hops(self, left: str, _: int) -> None:
        more = f"/hops/{int(left) - 1}" if int(left) else "/good/"
        self.answer(307, Location=more)

    def way_stall(self, _: str, __: int) -> None:
        self.answer(200, DATA, 10)
        time.sleep(1.5)

    def way_drip(self, _: str, __: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        with contextlib.suppress(OSError):
            for i in range(60):
                self.wfile.write(DATA[i : i + 1])
                time.sleep(0.05)
        self.close_connection = True


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    yield from running(Server())


def running(server: AnyServer) -> Iterator[AnyServer]:
    """The server, answering until the generator is closed."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
