"""A folder over HTTP on loopback, behind a link of one latency and one bandwidth for all.

`python -m benchmarks.loading.link ROOT LATENCY_S BYTES_PER_S [FAIL_EVERY]` prints its port and
serves until its standard input closes. `GET /bytes-sent` answers how many bytes of files it has
sent; a folder answers with links to what is in it. Every FAIL_EVERY-th ranged request is answered
by 503, but no range more often than a client tries again.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from shards.store import PATIENCE

_PIECE = 16 << 10
_RANGE = re.compile(rb"range: bytes=(\d+)-(\d*)", re.I)


class Link:
    """Serves ranges of the files under `root`."""

    def __init__(self, root: Path, latency: float, bandwidth: float, fail_every: int = 0) -> None:
        self.root, self.latency, self.bandwidth = root.resolve(), latency, bandwidth
        self.fail_every, self.requests, self.sent = fail_every, 0, 0
        self.free_at, self.refused = 0.0, Counter[tuple[str, str]]()
        self.serving: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One task per client, its own: what asyncio starts for a coroutine logs every cancel."""
        task = asyncio.create_task(self.serve(reader, writer))
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung_up = suppress(asyncio.IncompleteReadError, ConnectionError)
        with closing(writer), hung_up:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self.answer(head, writer)

    async def answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if path == "/bytes-sent":
            return await self.reply(writer, 200, str(self.sent).encode(), method)
        await asyncio.sleep(self.latency)
        file = (self.root / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.root) or not file.exists():
            return await self.reply(writer, 404, b"", method)
        if file.is_dir():
            links = "".join(f'<a href="{path.rstrip("/")}/{p.name}"></a>' for p in file.iterdir())
            return await self.reply(writer, 200, links.encode(), method)
        size, wanted = file.stat().st_size, _RANGE.search(head)
        self.requests += wanted is not None
        if wanted and self.fails(path, wanted[0].decode()):
            return await self.reply(writer, 503, b"", method)
        start = int(wanted[1]) if wanted else 0
        stop = min(int(wanted[2]) + 1, size) if wanted and wanted[2] else size
        with file.open("rb") as opened:
            opened.seek(start)
            body = opened.read(max(0, stop - start))
        extra = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n" if wanted else ""
        self.sent += len(body) if method == "GET" else 0
        await self.reply(writer, 206 if wanted else 200, body, method, extra)

    def fails(self, path: str, wanted: str) -> bool:
        due = self.fail_every and self.requests % self.fail_every == 0
        if not due or self.refused[path, wanted] == PATIENCE.attempts - 1:
            return False
        self.refused[path, wanted] += 1
        return True

    async def reply(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, method: str, extra: str = ""
    ) -> None:
        head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nAccept-Ranges: bytes\r\n"
        writer.write(f"{head}{extra}\r\n".encode())
        for at in range(0, len(body) if method == "GET" else 0, _PIECE):
            piece = body[at : at + _PIECE]
            self.free_at = max(self.free_at, time.monotonic()) + len(piece) / self.bandwidth
            await asyncio.sleep(self.free_at - time.monotonic())
            writer.write(piece)
        await writer.drain()


@contextmanager
def link(root: Path, latency: float, bandwidth: float, fail_every: int = 0) -> Iterator[str]:
    """The address of `root` behind such a link, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.loading.link", root, latency, bandwidth, fail_every]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([str(word) for word in words], **pipes) as server:  # type: ignore[call-overload]
        assert server.stdin is not None and server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()


def bytes_sent(address: str) -> int:
    with urllib.request.urlopen(f"{address}/bytes-sent") as answer:
        return int(answer.read())


async def main(root: Path, latency: float, bandwidth: float, fail_every: int) -> None:
    served = Link(root, latency, bandwidth, fail_every)
    server = await asyncio.start_server(served.accept, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    root, latency, bandwidth, fail_every = sys.argv[1:5]
    asyncio.run(main(Path(root), float(latency), float(bandwidth), int(fail_every)))
