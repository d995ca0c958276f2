"""Which addresses on the web may be fetched, and where they lead: the guard against being sent
into the private network that this machine stands in.

https on port 443, a host by name, no user name. The name is resolved once, every address it has
must be public, and the connection is made to that very address; each redirect is judged again.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import urllib3


class FetchProblem(Exception):
    """Why bytes cannot be had: a code of shards.outcome.CODES and what was seen."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail[:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A server that the user of this machine chose, such as HF_ENDPOINT: not judged."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
        return cls(scheme=parts.scheme, host=parts.hostname or "", port=port)


def check_address(url: str) -> SplitResult:
    """The parts of a public https address; FetchProblem says what is wrong with another."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{url[:100]!r}: {error}") from error
    host = parts.hostname or ""
    if parts.scheme != "https":
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{url[:100]!r} is not an https address")
    if "@" in parts.netloc or port not in (None, 443):
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{parts.netloc[:100]!r}: user name or port")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{url[:100]!r} holds unusual characters")
    if not host or not host.rsplit(".", 1)[-1].isalpha() or "." not in host:
        # a number in any spelling (0x7f.1, 127.1, [::1]), and names of the local network
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{host[:100]!r} is no public host name")
    return parts


def resolve(host: str) -> list[str]:
    """Every address of a host, as the resolver gives them."""
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchProblem("FETCH_UNREACHABLE", f"{host}: {error.strerror or error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def public_address(host: str) -> str:
    """The address to connect to; one that is not public refuses the host."""
    found = resolve(host)
    for text in found:
        address = ipaddress.ip_address(text.split("%")[0])
        plain = getattr(address, "ipv4_mapped", None) or address
        if not plain.is_global or plain.is_multicast:
            detail = f"{host} leads to {text}, which is not public"
            raise FetchProblem("FETCH_ADDRESS_REFUSED", detail)
    if not found:
        raise FetchProblem("FETCH_UNREACHABLE", f"{host} has no address")
    return found[0]


def connection(url: str, trusted: Origin | None) -> tuple[urllib3.HTTPConnectionPool, str, str]:
    """(connection, path with its query, value of Host) for an address that passed the rules.

    The connection goes to the address that was judged, under the host's own certificate.
    """
    if trusted is not None and Origin.of(url) == trusted:
        pool = urllib3.connection_from_url(url, retries=False)
        parts = urlsplit(url)
        return pool, _target(parts), parts.netloc
    parts = check_address(url)
    host = str(parts.hostname)
    return pool_to(public_address(host), host), _target(parts), host


def pool_to(address: str, host: str) -> urllib3.HTTPSConnectionPool:
    """A TLS connection to an address whose certificate must be `host`'s."""
    return urllib3.HTTPSConnectionPool(
        address, 443, server_hostname=host, assert_hostname=host, retries=False
    )


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
