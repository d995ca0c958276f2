"""What a build leaves in OUT that ends with an error after admission: books, refusals, a page.

A manifest of an earlier build goes, so that nobody packs or trains from what is no longer built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixtures.manifest.files import MANIFEST
from mixtures.plan.build_manifest import NothingLeft
from mixtures.recipe.types import Recipe
from pipeline.report.page import write_failure
from shards.errors import UserError
from shards.index import MATCHES, NAMED, REFUSED, SAMPLES, UNREAD, table_of
from shards.outcome import Books, write_books
from shards.pool import Pool, Receipt
from shards.receipts import attempt_of
from shards.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The books of every source, and behind them `refusals` (REFUSED) and `matches` (MATCHES)."""

    books: list[Books]
    refusals: pa.Table
    matches: pa.Table


@contextmanager
def accounted(
    recipe: Recipe, out: str, accounts: Callable[[Exception], Accounts]
) -> Iterator[None]:
    """An error inside leaves its accounts and a page in `out`, and goes on its way."""
    try:
        yield
    except Exception as error:
        with suppress(UserError, OSError):  # what cannot be read or written is the lesser trouble
            ledger = accounts(error)
            tables = {"refused.parquet": ledger.refusals, "leaks.parquet": ledger.matches}
            write_books(Store(out), ledger.books, tables)
            licences = {source.name: source.licence for source in recipe.sources}
            write_failure(out, recipe.name, str(error), ledger.books, ledger.refusals, licences)
        raise


def unplanned(
    pool: Pool, admissions: Mapping[str, Receipt], out: str, cause: Exception
) -> Accounts:
    """The accounts as far as they go where no plan was made; removes `out`'s manifest."""
    Store(out).remove(MANIFEST)
    # the plan had its books before it found nothing left
    if isinstance(cause, NothingLeft):
        books = list(cause.books)
        refusals = cause.refusals
    else:
        # the verdict of decoding, by clip: it refuses every sample that shows the clip
        by_clip = _broken(pool)
        # without a plan: what admission and decoding refused so far
        accounts = [_so_far(pool, name, receipt, by_clip) for name, receipt in admissions.items()]
        books = [table for table, _ in accounts]
        refusals = pa.concat_tables([REFUSED.empty_table(), *(table for _, table in accounts)])
    return Accounts(books=books, refusals=refusals, matches=MATCHES.empty_table())


def _broken(pool: Pool) -> dict[str, dict[str, Any]]:
    """The refusal of each clip that was refused when it was last tried."""
    attempts: dict[int, list[Receipt]] = {}
    for receipt in pool.receipts("decode"):
        attempts.setdefault(attempt_of(receipt.parameters), []).append(receipt)
    broken: dict[str, dict[str, Any]] = {}
    for attempt in sorted(attempts):
        # what was tried again is what it became then
        tried = (
            {clip for receipt in attempts[attempt] for clip in receipt.inputs} if attempt else set()
        )
        broken = {clip: row for clip, row in broken.items() if clip not in tried}
        rows = pool.table(attempts[attempt], "refused", REFUSED).to_pylist()
        broken |= {row["key"]: row for row in rows}
    return broken


def _so_far(
    pool: Pool, name: str, receipt: Receipt, broken: Mapping[str, dict[str, Any]]
) -> tuple[Books, pa.Table]:
    """The books of a source before any verdict, and its refusals with those of its media."""
    samples = pool.table([receipt], "index/samples", SAMPLES).drop_columns(["turns"]).to_pylist()
    undecoded = list(_undecoded(samples, broken))
    before = pool.table([receipt], "refused", REFUSED)
    unread = pool.table([receipt], "unread", UNREAD).to_pylist()
    named = pool.table([receipt], "named", NAMED).to_pylist()
    counts = receipt.counts
    refused = counts["samples_refused"] + len(undecoded)
    books = Books(
        source=name,
        records=counts["records"],
        records_refused=counts["records_refused"],
        samples=counts["samples"],
        samples_refused=refused,
        not_chosen=0,
        chosen=counts["samples"] - refused,
        drawn=0,
        repeats=0,
        unread={row["field"]: row["records"] for row in unread},
        names={row["what"]: row["count"] for row in named},
    )
    return books, pa.concat_tables([before, table_of(REFUSED, undecoded)])


def _undecoded(
    samples: list[dict[str, Any]], broken: Mapping[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A refusal for every sample that shows a clip that could not be decoded."""
    for row in samples:
        refused_clip = next((broken[clip] for clip in row["clip_ids"] if clip in broken), None)
        if refused_clip:
            named = {name: row[name] for name in ("source", "record", "key")}
            yield refused_clip | named | {"origin": f"{row['dataset']}@{row['revision']}"}
