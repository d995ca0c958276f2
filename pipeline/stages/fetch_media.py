"""Media on the web: addresses fetched into the cache, each with its digest or the reason why not.

Addresses rot, and a broken one is a refusal like any other: it stands in a receipt, and is not
tried again by later builds of the pool.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.fetch import local_files
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem, check_address
from shards.index import MEMBERS, table_of
from shards.pool import Pool, Receipt
from shards.receipts import Work

LINK_VERSION = "1"
AT_ONCE = 16  # addresses fetched side by side
LIMITS = Limits(max_bytes=64 << 20, max_seconds=120, attempts=3, stall=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUnit:
    """Some addresses of media."""

    pool: str
    urls: tuple[str, ...]


def link(unit: LinkUnit) -> Receipt:
    """Fetch each address into the cache; what cannot be had is written down with its code."""
    # threads, since fetching waits for the network; each has its own bounds of time and bytes
    with ThreadPoolExecutor(AT_ONCE) as threads:
        rows = list(threads.map(_linked, unit.urls))
    tables = {"index/members": table_of(MEMBERS, rows)}
    refused = sum(bool(row["code"]) for row in rows)
    return Pool(unit.pool).commit(
        # the addresses are the inputs: no receipt, no digest could be known before
        Work("link", LINK_VERSION, {}, unit.urls),
        tables,
        counts={"urls": len(rows), "refused": refused},
    )


def _linked(url: str) -> dict[str, str]:
    row = {"name": url, "media_digest": "", "address": "", "code": "", "detail": ""}
    try:
        check_address(url)
        found = local_files.fetched(url, LIMITS, media=True)
    except FetchProblem as problem:
        return row | {"code": problem.code, "detail": problem.detail}
    return row | {"media_digest": found.digest, "address": f"file:{url}"}
