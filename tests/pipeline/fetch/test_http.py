"""Downloads: what arrives is what the server holds, or a refusal with its code, in bounded time."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from pipeline.fetch import url_guard
from pipeline.fetch.http import Request, check_first_bytes, download
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem, Origin, check_address, public_address
from tests.hostile.addresses import PRIVATE, PUBLIC, REFUSED
from tests.support.flaky_server import DATA, OTHER, Handler, Server, serve

QUICK = Limits(pause=0.01, longest_pause=0.05, stall=1, window=0.3, max_seconds=20)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


def got(server: Server, path: str, part: Path, limits: Limits = QUICK) -> bytes:
    download(Request(url=server.url + path, trusted=Origin.of(server.url)), part, limits)
    assert not part.with_name(part.name + ".version").exists()
    return part.read_bytes()


def code(server: Server, path: str, part: Path, limits: Limits = QUICK) -> str:
    with pytest.raises(FetchProblem) as caught:
        got(server, path, part, limits)
    return caught.value.code


def test_a_file_is_fetched(server: Server, tmp_path: Path) -> None:
    assert got(server, "/good/", tmp_path / "part") == DATA


@pytest.mark.parametrize("after", range(0, 300_000, 37_501))
def test_a_dropped_connection_is_resumed(server: Server, tmp_path: Path, after: int) -> None:
    server.ranges.clear()
    assert got(server, f"/drop/{after}", tmp_path / "part") == DATA
    assert [text for text in server.ranges if text] or after == 0


def test_a_part_of_an_earlier_call_is_continued(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "part"
    assert code(server, "/drop/150000", part, Limits(attempts=1)) == "FETCH_SHORT"
    assert part.stat().st_size >= 100_000
    server.ranges.clear()
    assert got(server, "/good/", part) == DATA
    assert server.ranges[0].startswith("bytes=1")


def test_a_part_whose_note_is_damaged_is_fetched_from_its_beginning(
    server: Server, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    assert code(server, "/drop/150000", part, Limits(attempts=1)) == "FETCH_SHORT"
    note = part.with_name("part.version")
    note.write_bytes(note.read_bytes()[:-1])
    server.ranges.clear()
    assert got(server, "/good/", part) == DATA and server.ranges == [""]


@pytest.mark.parametrize("way", ["ignores", "offset", "unsatisfied", "weak"])
def test_a_server_that_cannot_resume_is_asked_for_all(
    server: Server, tmp_path: Path, way: str
) -> None:
    assert got(server, f"/{way}/", tmp_path / "part") == DATA


def test_two_versions_are_never_spliced(server: Server, tmp_path: Path) -> None:
    assert got(server, "/replaced/", tmp_path / "part") == OTHER


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/half/", "FETCH_SHORT"),
        ("/longer/", "FETCH_SHORT"),
        ("/packed/", "FETCH_REFUSED"),
        ("/loop/", "FETCH_TOO_MANY_HOPS"),
        ("/hops/12", "FETCH_TOO_MANY_HOPS"),
        ("/to/http://169.254.169.254/latest/meta-data/", "FETCH_ADDRESS_REFUSED"),
        ("/to/file:///etc/passwd", "FETCH_ADDRESS_REFUSED"),
        ("/to/https://127.0.0.1/", "FETCH_ADDRESS_REFUSED"),
        ("/status/404-9-", "FETCH_REFUSED"),
        ("/status/401-9-", "FETCH_REFUSED"),
        ("/status/503-99-", "FETCH_REFUSED"),
        ("/status/429-99-1000000000", "FETCH_REFUSED"),
        ("/status/429-99-soon", "FETCH_REFUSED"),
        ("/drip/", "FETCH_TOO_SLOW"),
        ("/stall/", "FETCH_SHORT"),
    ],
)
def test_a_server_that_fails_is_refused_in_bounded_time(
    server: Server, tmp_path: Path, path: str, expected: str
) -> None:
    limits = Limits(pause=0.01, longest_pause=0.05, stall=0.5, window=0.3, attempts=2)
    began = time.monotonic()
    assert code(server, path, tmp_path / "part", limits) == expected
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/status/429-2-1", "/status/500-3-", "/status/503-1-soon"])
def test_a_server_that_recovers_is_waited_for(server: Server, tmp_path: Path, path: str) -> None:
    assert got(server, path, tmp_path / "part") == DATA


def test_five_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    assert got(server, "/hops/4", tmp_path / "part") == DATA


def test_bytes_and_time_are_bounded(server: Server, tmp_path: Path) -> None:
    assert code(server, "/good/", tmp_path / "a", Limits(max_bytes=1000)) == "FETCH_TOO_BIG"
    late = Limits(max_seconds=0.2, window=60)
    assert code(server, "/drip/", tmp_path / "b", late) == "FETCH_TOO_SLOW"


def test_a_size_that_the_publisher_does_not_name_is_refused(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/good/"
    request = Request(url=url, nbytes=390, trusted=Origin.of(server.url))
    with pytest.raises(FetchProblem, match="the publisher names 390"):
        download(request, tmp_path / "part", QUICK)


def test_a_token_stays_with_its_host(server: Server, tmp_path: Path) -> None:
    with serve() as other:
        seen: list[str] = []
        original = Handler.way_good

        def way_good(self: Handler, argument: str, call: int) -> None:
            seen.append(self.headers.get("Authorization", ""))
            original(self, argument, call)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Handler, "way_good", way_good)
            patch.setattr(url_guard, "check_address", urlsplit)
            patch.setattr(url_guard, "public_address", lambda _: "")
            patch.setattr(url_guard, "pool_to", lambda *_: urllib3.connection_from_url(other.url))
            for path in ("/good/", f"/to/{other.url}/good/"):
                request = Request(
                    url=server.url + path,
                    headers={"Authorization": "Bearer secret"},
                    trusted=Origin.of(server.url),
                )
                download(request, tmp_path / f"part{len(seen)}", QUICK)
    assert seen == ["Bearer secret", ""]


@pytest.mark.parametrize("path", ["/page/", "/text/"])
def test_the_first_bytes_decide_what_came(server: Server, tmp_path: Path, path: str) -> None:
    got(server, path, tmp_path / "part")
    with pytest.raises(FetchProblem, match="FETCH_NOT_MEDIA"):
        check_first_bytes(tmp_path / "part", path, media=True)


@pytest.mark.parametrize(
    "head", [b"RIFF\0\0\0\0WEBP", b"GIF89a", b"\0\0\0\x18ftypmp42", b"\xff\xd8\xff"]
)
def test_media_are_known_by_their_first_bytes(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "part").write_bytes(head + bytes(100))
    check_first_bytes(tmp_path / "part", "x", media=True)


# Addresses -------------------------------------------------------------------------


@pytest.mark.parametrize("url", REFUSED.values(), ids=REFUSED.keys())
def test_an_address_that_is_not_public_https_is_refused(url: str) -> None:
    with pytest.raises(FetchProblem) as caught:
        check_address(url)
    assert caught.value.code == "FETCH_ADDRESS_REFUSED"


@pytest.mark.parametrize("answers", PRIVATE.values(), ids=PRIVATE.keys())
def test_a_name_in_private_space_is_refused(
    answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_guard, "resolve", lambda _: answers)
    with pytest.raises(FetchProblem) as caught:
        url_guard.connection("https://media.example.org/a.jpg", None)
    assert caught.value.code == "FETCH_ADDRESS_REFUSED"


@pytest.mark.parametrize("answers", PUBLIC.values(), ids=PUBLIC.keys())
@pytest.mark.parametrize("host", ["media.example.org", "b_1.cdn-2.xn--p1ai", "a.co"])
def test_a_public_name_is_connected_to(
    answers: list[str], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_guard, "resolve", lambda _: answers)
    pool, _, found = url_guard.connection(f"https://{host}/a.jpg", None)
    assert (pool.host.strip("[]"), found) == (answers[0], host)


def test_what_is_said_of_an_address_holds_no_signature(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchProblem) as caught:
        got(server, "/status/404-9-?X-Amz-Signature=secret", tmp_path / "part")
    with pytest.raises(FetchProblem) as told:
        check_address("https://user:secret@example.org/?secret=\x1b[2J")
    for said in (caught.value.detail, told.value.detail):
        assert "secret" not in said and said.isprintable()


def test_a_name_without_an_address_is_unreachable() -> None:
    with pytest.raises(FetchProblem) as caught:
        public_address("no-such-host.invalid")
    assert caught.value.code == "FETCH_UNREACHABLE"


def test_the_connection_goes_to_the_address_that_was_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def rebinding(host: str) -> list[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    monkeypatch.setattr(url_guard, "resolve", rebinding)
    pool, target, host = url_guard.connection("https://media.example.org/a.jpg?b=1", None)
    assert (pool.host, pool.port, target, host) == (
        "93.184.216.34",
        443,
        "/a.jpg?b=1",
        "media.example.org",
    )
    assert asked == ["media.example.org"]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The same server behind TLS, with a certificate for media.example.org."""
    home = tmp_path_factory.mktemp("tls")
    key, certificate = home / "key.pem", home / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=media.example.org"]
    command += ["-addext", "subjectAltName=DNS:media.example.org"]
    subprocess.run(command, check=True, capture_output=True)
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=ThreadingHTTPServer.serve_forever, args=(server, 0.05))
    thread.start()
    yield server.server_address[1], str(certificate)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("host", "expected"), [("media.example.org", ""), ("other.example.org", "FETCH_UNREACHABLE")]
)
def test_the_certificate_must_be_the_hosts(
    secure: tuple[int, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    expected: str,
) -> None:
    port, certificate = secure

    def pool_to(_: str, name: str) -> urllib3.HTTPSConnectionPool:
        return urllib3.HTTPSConnectionPool(
            "127.0.0.1",
            port,
            server_hostname=name,
            assert_hostname=name,
            ca_certs=certificate,
            retries=False,
        )

    monkeypatch.setattr(url_guard, "resolve", lambda _: ["93.184.216.34"])
    monkeypatch.setattr(url_guard, "pool_to", pool_to)
    found = ""
    try:
        limits = Limits(attempts=1, stall=2)
        download(Request(url=f"https://{host}/good/"), tmp_path / "part", limits)
    except FetchProblem as problem:
        found = problem.code
    assert found == expected
