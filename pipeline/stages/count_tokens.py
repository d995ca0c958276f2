"""Tokens per turn of one table of samples, under one tokenizer and template; the tokenizer kept."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mixtures.tokens.text import TextCodec
from shards.ids import sha256_hex
from shards.index import LENGTHS, TOKENIZERS, table_of
from shards.pool import Pool, Receipt
from shards.receipts import Work
from shards.sample import turns_from_json

LENGTHS_VERSION = "1"
TOKENIZER_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextUnit:
    """One table of samples to be counted under one tokenizer and template."""

    pool: str
    table: str
    tokenizer: bytes
    template: str


def count_lengths(unit: TextUnit) -> Receipt:
    """Tokens per turn of every sample in the table."""
    pool = Pool(unit.pool)
    codec = TextCodec(unit.tokenizer, unit.template)
    # the profile is a digest of tokenizer and template: recipes that share both share the counts
    parameters = {"text_profile": codec.profile_id}
    work = Work("lengths", LENGTHS_VERSION, parameters, [unit.table])
    if done := pool.done(work):
        return done
    rows = pool.read(f"index/samples/{unit.table}").select(["source", "key", "turns"]).to_pylist()
    counted = (
        {
            "source": row["source"],
            "key": row["key"],
            "tokens": codec.count_turns(turns_from_json(json.loads(row["turns"]))),
        }
        for row in rows
    )
    tables = {f"lengths/{codec.profile_id}": table_of(LENGTHS, counted)}
    return pool.commit(work, tables)


def keep_tokenizer(pool: Pool, address: str, tokenizer: bytes) -> Receipt:
    """Put the tokenizer that was fetched from an address into the pool, where plans find it."""
    digest = sha256_hex(tokenizer)
    work = Work("tokenizer", TOKENIZER_VERSION, {"address": address}, [digest])
    if done := pool.done(work):
        return done
    rows = [{"address": address, "json": tokenizer}]
    return pool.commit(work, {"tokenizers": table_of(TOKENIZERS, rows)})
