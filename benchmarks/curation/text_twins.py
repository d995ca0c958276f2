"""Near-duplicate conversations and leaked questions at 10^6 texts, on one core, beside datasketch.

Made conversations: questions of 9 words, half of them with one and the same way of asking behind
them, and answers of 30 words, drawn from 30,000 words as a language draws them (Zipf). Of one in a
thousand a copy with one or two words changed stands among them; of another one in a thousand the
question holds a question of a made benchmark of 10^5. The shipped stages run over a pool.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pyarrow as pa
from rich.console import Console

from benchmarks import peers
from benchmarks.frame import Bar, at_least, at_most, equal
from benchmarks.size.memory import peak_bytes
from pipeline.dedup import text_minhash
from pipeline.stages import decode_media, match_leaks, pair_texts
from pipeline.stages.hash_questions import question_table
from shards.index import LEAKED_TEXTS, TEXT_PAIRS
from shards.leak_index import write_index
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import Work

TEXTS, TABLES, EVERY = 1_000_000, 10, 1_000
QUESTIONS, ASKED_WORDS, ANSWER_WORDS = 100_000, 9, 30
RULE = "\nAnswer the question using a single word or phrase."
BESIDE, ROUNDS = 10_000, 3
_VOCABULARY = np.array([f"w{n}" for n in range(30_000)])


def run(console: Console) -> list[Bar]:
    with tempfile.TemporaryDirectory(prefix="slowfast-") as home:
        pool = Pool(f"{home}/pool", Profile())
        tables = [commit(pool, number) for number in range(TABLES)]
        sketched, texts = timed(
            console, f"sketches of {TEXTS:,}", lambda: [sketch(pool, name) for name in tables]
        )
        units = pair_texts.parted(pool.store.url, texts, {"made": "1"})
        compared, done = timed(console, "twins", lambda: [pair_texts.pair(unit) for unit in units])
        pairs = pool.table(done, "clusters/text", TEXT_PAIRS)
        index = made_index(f"{home}/index")
        matched, found = timed(
            console,
            f"{QUESTIONS:,} questions",
            lambda: [match(pool, index, name) for name in tables],
        )
        leaked = pool.table(found, "leaks/text", LEAKED_TEXTS)
    recall, false = judged(pairs)
    peak = peak_bytes() / 1e6
    console.print(f"{len(units)} parts, {len(pairs):,} pairs; peak memory {peak:,.0f} MB")
    asks = {row["key"] for row in leaked.to_pylist() if row["shared"]}
    planted = {str(n) for n in range(1, TEXTS, EVERY)}
    return [
        at_most("10^6 texts, sketches and twins: CPU seconds", sketched + compared, 180),
        at_least(
            "copies with one or two of 30 words changed, at least 0.8 alike: recall", recall, 0.98
        ),
        equal("pairs that are no copies", false, 0),
        at_most("10^6 texts x 10^5 questions: CPU seconds", matched, 120),
        equal("planted questions missed, or others matched by 12-grams", len(asks ^ planted), 0),
        at_most("peak memory, MB", peak, 8192),
        *beside(console),
    ]


def timed(console: Console, what: str, work: Callable[[], list]) -> tuple[float, list]:
    """CPU seconds of some work, and what it returns."""
    started = time.process_time()
    result = work()
    seconds = time.process_time() - started
    console.print(f"{what}: {seconds:.1f} CPU seconds")
    return seconds, result


def sketch(pool: Pool, table: str):
    return pair_texts.sketch(pair_texts.TextsUnit(pool=pool.store.url, table=table))


def match(pool: Pool, index: str, table: str):
    unit = match_leaks.TextLeakUnit(pool=pool.store.url, index=index, table=table)
    return match_leaks.match_text(unit)


# what is made ----------------------------------------------------------------------


def prose(rng: np.random.Generator, count: int, words: int) -> list[str]:
    return [" ".join(row) for row in _VOCABULARY[rng.zipf(1.2, (count, words)) % len(_VOCABULARY)]]


def conversations(first: int, count: int) -> list[tuple[str, str]]:
    """(question, answer) number first, first + 1, ...; see the module for what is planted."""
    rng = np.random.Generator(np.random.Philox(key=first))
    asked, said = prose(rng, count, ASKED_WORDS), prose(rng, count, ANSWER_WORDS)
    asked = [text + RULE * (number % 2) for number, text in enumerate(asked)]
    for number in range(0, count, EVERY):
        asked[number + 1] = f"Tell me: {question((first + number) // EVERY)}"
        asked[number + 2], words = asked[number], said[number].split()
        for place in [(15,), (0, 29)][number // EVERY % 2]:
            words[place] = "changed"
        said[number + 2] = " ".join(words)
    return list(zip(asked, said, strict=True))


def question(number: int) -> str:
    """A question of the made benchmark: 14 words of its own."""
    rng = np.random.Generator(np.random.Philox(key=(1 << 40) + number))
    return " ".join(_VOCABULARY[rng.integers(0, len(_VOCABULARY), 14)])


def commit(pool: Pool, number: int) -> str:
    """One table of samples, as admission leaves it but for columns that nothing here reads."""
    count = TEXTS // TABLES
    first = number * count
    talks = [
        json.dumps([{"role": "user", "text": asked}, {"role": "assistant", "text": said}])
        for asked, said in conversations(first, count)
    ]
    names = range(first, first + count)
    columns = {
        "key": pa.array([str(n) for n in names], pa.string()),
        "turns_digest": pa.array([f"{n:032x}" for n in names], pa.string()),
        "turns": pa.array(talks, pa.string()),
    }
    receipt = pool.commit(
        Work("admit", "1", {}, [str(number)]), {"index/samples": pa.table(columns)}
    )
    return receipt.outputs["index/samples"][0]


def made_index(url: str) -> str:
    found = [(f"q{n}", question(n)) for n in range(QUESTIONS)]
    write_index(url, decode_media.DECODE_VERSION, [], {"questions": question_table("made", found)})
    return url


def judged(pairs: pa.Table) -> tuple[float, int]:
    """(recall of the copies that are at least 0.8 alike, pairs that are no copies)."""
    size, copies, twins = TEXTS // TABLES, set(), set()
    for first in range(0, TEXTS, size):
        talks = conversations(first, size)
        for number in range(0, size, EVERY):
            pair = tuple(f"{first + each:032x}" for each in (number, number + 2))
            copies.add(pair)
            if alike(talks[number][1], talks[number + 2][1]) >= 0.8:
                twins.add(pair)
    found = set(zip(*(pairs[name].to_pylist() for name in ("text_a", "text_b")), strict=True))
    return len(found & twins) / len(twins), len(found - copies)


def alike(one: str, other: str) -> float:
    """Jaccard similarity of the 3-grams of two texts, by sets of strings."""
    words = [text.split() for text in (one, other)]
    a, b = ({tuple(each[i : i + 3]) for i in range(len(each) - 2)} for each in words)
    return len(a & b) / len(a | b)


# the peer --------------------------------------------------------------------------


def beside(console: Console) -> list[Bar]:
    """CPU seconds of ours over datasketch's, for the same texts, in turns."""
    what = f"{BESIDE:,} texts: CPU seconds, ours / datasketch"
    talks = conversations(0, BESIDE)
    request = {"texts": [" ".join(talk) for talk in talks], "threshold": 0.8}
    ratios = []
    try:
        for _ in range(ROUNDS):
            ours, pairs = timed(console, f"{BESIDE:,} beside datasketch", lambda: pairs_of(talks))
            (theirs,) = peers.ask("datasketch", request, "twins")
            ratios.append(ours / theirs["seconds"])
    except peers.PeerUnavailable as error:
        return [Bar(what=what, value=None, bar="<= 1", holds=False, why=str(error))]
    console.print(f"{len(pairs)} pairs, datasketch {len(theirs['pairs'])}")
    return [at_most(what, median(ratios), 1)]


def pairs_of(talks: list[tuple[str, str]]) -> list[dict[str, object]]:
    digests = pa.chunked_array([[f"{n:032x}" for n in range(len(talks))]])
    sets = [text_minhash.shingles([talk[i] for talk in talks]) for i in (0, 1)]
    table = pair_texts.text_table(digests, *sets)
    found: list[dict[str, object]] = text_minhash.pairs_among(lambda: [table]).to_pylist()
    return found
