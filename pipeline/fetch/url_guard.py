"""Which addresses on the web may be fetched, and where they lead: the guard against being sent
into the private network that this machine stands in.

https on port 443, a host by name (labels that a resolver takes), no user name. The name is resolved
once, every address it has must be public, and the connection is made to that very address; each
redirect is judged again.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import urllib3

from shards.errors import escaped

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?:{_LABEL}\.)+(?:[a-z]{{2,63}}|xn--{_LABEL})")  # no number in any spelling
_MAX_NAME = 253
_CARRIERS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0/96", "::/96")))
"""NAT64, mapped and compatible addresses: their last 32 bits are an IPv4 address."""
_CLOSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is Oracle's metadata service
            "168.63.129.16/32",  # Azure's
            "100.100.100.200/32",  # Alibaba's; the others' are link-local, or below fd00::/8
        ),
    )
)
_UNICAST = ipaddress.ip_network("2000::/3")
"""All that is public of IPv6 lies here (RFC 4291): not fec0::/10, nor a local prefix of NAT64."""


class FetchProblem(Exception):
    """Why bytes cannot be had: a code of shards.outcome.CODES and what was seen."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, escaped(detail)[:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A server that the user of this machine chose, such as HF_ENDPOINT: not judged."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        try:
            parts = urlsplit(url)
            port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
        except ValueError as error:
            raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{shown(url)}: {error}") from error
        return cls(scheme=parts.scheme, host=parts.hostname or "", port=port)


def check_address(url: str) -> SplitResult:
    """The parts of a public https address; FetchProblem says what is wrong with another."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{shown(url)}: {error}") from error
    host = parts.hostname or ""
    if parts.scheme != "https":
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{shown(url)} is not an https address")
    if "@" in parts.netloc or port not in (None, 443):
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{shown(host)}: with a user name or a port")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{shown(url)} holds unusual characters")
    if len(host) > _MAX_NAME or not _NAME.fullmatch(host):
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{shown(host)!r} is no public host name")
    return parts


def shown(url: str) -> str:
    """An address as people may see it: without its query, which may be a signature."""
    return escaped(re.split(r"[?#]", url, maxsplit=1)[0][:150])


def resolve(host: str) -> list[str]:
    """Every address of a host, as the resolver gives them."""
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchProblem("FETCH_UNREACHABLE", f"{host}: {error.strerror or error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: IPAddress) -> bool:
    """Whether the address, and every one that it carries, belongs to the public internet."""
    return all(
        one.is_global
        and not one.is_multicast
        and (one.version == 4 or one in _UNICAST)
        and not any(one in net for net in _CLOSED)
        for one in _carried(address)
    )


def _carried(address: IPAddress) -> Iterator[IPAddress]:
    """The addresses to which packets for this one go in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif any(address in net for net in _CARRIERS):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    else:
        yield address
        if address.sixtofour:
            yield address.sixtofour


def public_address(host: str) -> str:
    """The address to connect to; one that is not public refuses the host."""
    addresses = resolve(host)
    for text in addresses:
        if not is_public(ipaddress.ip_address(text.split("%")[0])):
            detail = f"{host} leads to {text}, which is not public"
            raise FetchProblem("FETCH_ADDRESS_REFUSED", detail)
    if not addresses:
        raise FetchProblem("FETCH_UNREACHABLE", f"{host} has no address")
    return addresses[0]


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
