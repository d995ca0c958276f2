"""Answers of servers, as raw bytes: heads that lie or hold nonsense, and ways to never be done.

`ANSWERS` are those that once ended a build or held a worker; `head` makes any number of others.
Each must end in a file or in a FetchProblem, within the limits.
"""

from __future__ import annotations

import random
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.flaky_server import DATA

Answer = tuple[bytes, bytes, float]
"""What is sent at once, then again and again, with a pause in seconds between."""

OK = b"HTTP/1.1 200 OK\r\n"
SMALL = DATA[:1000]
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + SMALL + b"\r\n0\r\n"

ANSWERS: dict[str, Answer] = {
    "port of five digits": (b"HTTP/1.1 302 X\r\nLocation: https://h:99999/\r\n\r\n", b"", 0),
    "port of a superscript": (b"HTTP/1.1 302 X\r\nLocation: https://h:\xb2/\r\n\r\n", b"", 0),
    "bracket in a redirect": (b"HTTP/1.1 302 X\r\nLocation: https://[h/\r\n\r\n", b"", 0),
    "empty label in a redirect": (b"HTTP/1.1 302 X\r\nLocation: https://a..com/\r\n\r\n", b"", 0),
    "superscript length": (OK + b"Content-Length: \xb2\r\n\r\n" + SMALL, b"", 0),
    "length of 5,000 digits": (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"", 0),
    "negative length": (OK + b"Content-Length: -5\r\n\r\n" + SMALL, b"", 0),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n" + SMALL, b"", 0),
    "superscript wait": (b"HTTP/1.1 503 X\r\nRetry-After: \xb2\r\n\r\n", b"", 0),
    "wait of 5,000 digits": (
        b"HTTP/1.1 429 X\r\nRetry-After: " + b"9" * 5000 + b"\r\n\r\n",
        b"",
        0,
    ),
    "wait until year 9999": (
        b"HTTP/1.1 503 X\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n",
        b"",
        0,
    ),
    "range of 5,000 digits": (
        b"HTTP/1.1 206 X\r\nContent-Range: bytes " + b"9" * 5000 + b"-1/2\r\n\r\n",
        b"",
        0,
    ),
    "status of letters": (b"HTTP/1.1 OK OK\r\n\r\n", b"", 0),
    "no HTTP": (b"220 mail.example.org ESMTP\r\n", b"", 0),
    "nothing": (b"", b"", 0),
    "tag of two lines": (OK + b'ETag: "a\r\n b"\r\nContent-Length: 9\r\n\r\n1234', b"", 0),
    "chunk of letters": (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", b"", 0),
    "chunk of minus one": (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + SMALL, b"", 0),
    "endless trailers": (CHUNKED, b"X: y\r\n", 0.02),
    "endless trailers, fast": (CHUNKED, b"X: y\r\n" * 1000, 0),
    "endless head": (OK + b"X: ", b"y", 0.02),
    "endless head lines": (OK, b"X: y\r\n", 0.02),
    "endless 100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
    "endless 100 Continue, fast": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0),
    "endless chunk extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x", 0.02),
    "dripped body": (OK + b"Content-Length: 100000\r\n\r\n", b"y", 0.02),
    "silence": (b"", b"", 60),
}

_STATUS = (b"200", b"200", b"206", b"302", b"308", b"416", b"429", b"503", b"100", b"999")
_HEADERS = (
    b"Content-Length Content-Range Content-Encoding Transfer-Encoding Location ETag Retry-After "
    b"RateLimit Connection Trailer Upgrade Set-Cookie X"
).split()
_VALUES = (b"", b"0", b"1000", b"chunked", b"identity", b"gzip", b'"a"', b"bytes 0-999/1000", b"/x")


def head(numbers: random.Random) -> bytes:
    """A response: each part of its head is what it should be, nearly so, or random bytes."""
    lines = [_bent(numbers, b"HTTP/1.1"), numbers.choice(_STATUS), _bent(numbers, b"OK")]
    end = numbers.choice((b"\r\n", b"\r\n", b"\r\n", b"\n"))
    said = [b" ".join(lines)]
    for _ in range(numbers.randrange(6)):
        name = _bent(numbers, numbers.choice(_HEADERS))
        said.append(name + b": " + _bent(numbers, numbers.choice(_VALUES), often=3))
    return (
        end.join(said)
        + end * 2
        + numbers.choice((SMALL, b"", b"3e8\r\n" + SMALL + b"\r\n0\r\n\r\n"))
    )


def _bent(numbers: random.Random, text: bytes, often: int = 30) -> bytes:
    """The text, or once in `often` times something else in its place."""
    if numbers.randrange(often):
        return text
    if numbers.randrange(2):
        return numbers.randbytes(numbers.choice((1, 2, 8, 40, 300)))
    return text + numbers.choice((b"\xb2", b"9" * 5000, b"\0", b"\x1b[2J", b"\r\n ", b":", b"//["))


class _Sender(socketserver.BaseRequestHandler):
    server: Sender

    def handle(self) -> None:
        first, more, pause = self.server.answer()
        with suppress(OSError):
            self.request.recv(65536)
            self.request.sendall(first)
            while (more or pause) and not self.server.over.wait(pause):
                self.request.sendall(more)
            self.request.shutdown(socket.SHUT_WR)


class Sender(socketserver.ThreadingTCPServer):
    """Sends `answer()` to whoever asks, until the context ends."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: Callable[[], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Sender)
        self.answer, self.over = answer, threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def sending(answer: Callable[[], Answer]) -> Iterator[Sender]:
    """A server of raw answers on loopback."""
    server = Sender(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
