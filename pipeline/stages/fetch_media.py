"""Media on the web: addresses fetched into the cache, each with its digest or the reason why not.

Addresses rot, and a broken one is a refusal like any other: it stands in a receipt, and is not
tried again by later builds of the pool, unless one is told to (`--retry`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.fetch import local_files
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem, check_address
from shards.index import MEMBERS, table_of
from shards.pool import Pool, Receipt
from shards.receipts import Work, attempt_of

LINK_VERSION = "1"
AT_ONCE = 16  # addresses fetched side by side
LIMITS = Limits(max_bytes=64 << 20, max_seconds=120, attempts=3, stall=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUnit:
    """Some addresses of media.

    In another `attempt` those are asked again that were refused with a code of `retry`; what
    became of the others is taken from `known`, the table of the attempt before.
    """

    pool: str
    urls: tuple[str, ...]
    attempt: int = 0
    known: str = ""
    retry: frozenset[str] = frozenset()


def link(unit: LinkUnit) -> Receipt:
    """Fetch each address into the cache; what cannot be had is written down with its code."""
    pool = Pool(unit.pool)
    before = pool.read(f"index/members/{unit.known}").to_pylist() if unit.known else ()
    rows_by_url = {row["name"]: row for row in before if row["code"] not in unit.retry}
    missing = [url for url in unit.urls if url not in rows_by_url]
    # threads, since fetching waits for the network; each has its own bounds of time and bytes
    with ThreadPoolExecutor(AT_ONCE) as threads:
        rows_by_url |= zip(missing, threads.map(_linked, missing), strict=True)
    rows = [rows_by_url[url] for url in unit.urls]
    tables = {"index/members": table_of(MEMBERS, rows)}
    refused = sum(bool(row["code"]) for row in rows)
    return pool.commit(
        # the addresses are the inputs: no receipt, no digest could be known before
        Work("link", LINK_VERSION, {"attempt": unit.attempt} if unit.attempt else {}, unit.urls),
        tables,
        counts={"urls": len(rows), "refused": refused},
    )


def last_attempts(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Of the receipts of the same addresses the one of the latest attempt."""
    found: dict[tuple[str, ...], Receipt] = {}
    for one in sorted(receipts, key=lambda one: attempt_of(one.parameters)):
        found[one.inputs] = one
    return list(found.values())


def again(pool: Pool, urls: Collection[str], retry: frozenset[str]) -> Iterator[LinkUnit]:
    """Another attempt at these addresses, where they were refused with these codes."""
    for receipt in last_attempts(pool.receipts("link")) if retry else ():
        (known,) = receipt.outputs["index/members"]
        rows = pool.read(f"index/members/{known}").to_pylist()
        if any(row["code"] in retry and row["name"] in urls for row in rows):
            attempt = attempt_of(receipt.parameters) + 1
            yield LinkUnit(
                pool=pool.store.url, urls=receipt.inputs, attempt=attempt, known=known, retry=retry
            )


def _linked(url: str) -> dict[str, str]:
    row = {"name": url, "media_digest": "", "address": "", "code": "", "detail": ""}
    try:
        check_address(url)
        found = local_files.fetched(url, LIMITS, media=True)
    except FetchProblem as problem:
        return row | {"code": problem.code, "detail": problem.detail}
    return row | {"media_digest": found.digest, "address": f"file:{url}"}
