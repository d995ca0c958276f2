"""Evaluation: videos encoded once, memory that stays flat, its speed, what a kill repeats.

A made copy of EgoSchema and models of random weights; ten questions about each video. The rival is
the way of before: each question with its media through the tower and the decoder anew, in batches
of up to 64. Both answer the same questions over the same decoded media, interleaved, one thread,
CPU time; their replies are compared. About ten minutes of one core.
"""

from __future__ import annotations

import io
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console

from benchmarks.frame import Bar, at_least, at_most, equal
from benchmarks.inputs.made_model import made_copy, made_model
from benchmarks.size.memory import peak_bytes
from train.data.user_media import Seen, see_files
from train.evaluation.answerer import Answerer, VisualQuestion
from train.evaluation.benchmark import Run
from train.evaluation.copies import copies
from train.evaluation.evaluate import evaluate
from train.evaluation.replying.replies import Said

SMALL, MANY, QUESTIONS = 100, 1_000, 10
EVERY = 10
"""Of so many videos one is asked about in the way of before too: it takes ten times as long."""
KILLS = 6
SIDE, FRAMES, WIDTH, LAYERS = 128, 128, 256, 4


def run(console: Console) -> list[Bar]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*counts(folder), *speed(console, folder), *kills(console, folder)]


# Counts and memory ---------------------------------------------------------------


def counts(folder: Path) -> list[Bar]:
    """1,000 questions over 100 videos, then over 1,000 of them, each in a process of its own."""
    model = made_model(folder / "small")
    found = {}
    for videos, each in ((SMALL, QUESTIONS), (MANY, 1)):
        copy = made_copy(folder / f"copy-{videos}", videos, each)
        found[videos] = side("scores", model, copy, folder / f"{videos}.json")
    few, many = found[SMALL], found[MANY]
    return [
        equal("videos encoded, 1,000 questions over 100 videos", few["encoded"], SMALL),
        equal("videos decoded", few["decoded"], SMALL),
        equal("questions answered", few["asked"], SMALL * QUESTIONS),
        at_most("peak memory, 1,000 videos / 100 videos", many["peak"] / few["peak"], 1.05),
    ]


def side(task: str, *words: str | Path) -> dict[str, int]:
    """One task of this module in a process of its own; its last line."""
    command = [sys.executable, "-m", "benchmarks.training.evaluate", task, *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def scores(model: str, copy: str, out: str, log: str = "") -> None:
    """Evaluate with what the model was trained on; `log` gets each video when it is asked about."""
    if log:
        note(Path(log))
    quiet = Console(file=io.StringIO())
    named = copies([f"egoschema={copy}"])
    result = evaluate(Path(model), [], ["both"], Path(out), quiet, benchmarks=named)
    print(json.dumps(result["work"]["egoschema"] | {"peak": peak_bytes()}))  # noqa: T201


# Speed ---------------------------------------------------------------------------


def speed(console: Console, folder: Path) -> list[Bar]:
    """Questions per CPU second with media decoded, against each question by itself."""
    answerer = Answerer(
        made_model(folder / "large", width=WIDTH, layers=LAYERS, side=SIDE, frames=FRAMES)
    )
    copy = made_copy(folder / "long", 8, 1, seconds=FRAMES // 2, side=SIDE)
    files = sorted((copy / "videos").iterdir())
    media = see_files([(path, "video", path.name) for path in files], answerer.profile)
    seconds, asked = dict.fromkeys(("shared", "before"), 0.0), Counter[str]()
    equal_replies = 0
    for number in range(SMALL):
        questions = about(media[number % len(media)], number)
        replies = {}
        for way in ("shared", "before")[: 2 if number % EVERY == 0 else 1]:
            start = time.process_time()
            with each_alone(wanted=way == "before"):
                replies[way] = answerer.answer(questions, "both")
            seconds[way] += time.process_time() - start
            asked[way] += len(questions)
        if "before" in replies:
            equal_replies += same(replies["shared"], replies["before"])
    each = {way: seconds[way] / asked[way] for way in asked}
    console.print(f"CPU seconds for a question: {each}; questions: {dict(asked)}")
    return [
        at_least("questions per CPU second / before", each["before"] / each["shared"], 2.0),
        equal("replies equal to those of before, fp32", equal_replies, asked["before"]),
    ]


def about(seen: Seen, number: int) -> list[VisualQuestion]:
    return [
        VisualQuestion(
            text=f"What is shown? {number} {i} " + "Say it again. " * (i % 3), seen=(seen,)
        )
        for i in range(QUESTIONS)
    ]


def same(one: Sequence[Said], other: Sequence[Said]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


@contextmanager
def each_alone(*, wanted: bool) -> Iterator[None]:
    """Inside, if it is `wanted`, no question shares anything with another."""
    shared = patch("train.evaluation.answerer.shared_tokens", lambda _: 0)
    with shared if wanted else nullcontext():
        yield


# Kills ---------------------------------------------------------------------------


def kills(console: Console, folder: Path) -> list[Bar]:
    """An evaluation that is killed again and again, and what it asked more than once."""
    model = folder / "small"
    copy = made_copy(folder / "killed", SMALL, 2)
    log, out = folder / "log", folder / "killed.json"
    draw = random.Random(0)
    command = [sys.executable, "-m", "benchmarks.training.evaluate", "scores"]
    for _ in range(KILLS):
        begun = len(lines(log))
        with subprocess.Popen(
            [*command, model, copy, out, log], stdout=subprocess.DEVNULL
        ) as process:
            while len(lines(log)) == begun and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.random() * 0.5)
            process.send_signal(signal.SIGKILL)
    side("scores", model, copy, out, log)
    calm = folder / "calm.json"
    side("scores", model, copy, calm)
    files = [path.with_name(f"{path.stem}.egoschema.both.jsonl") for path in (out, calm)]
    asked = Counter(lines(log))
    repeated = sum(count - 1 for count in asked.values())
    console.print(f"{KILLS} kills: {len(asked)} videos, {repeated} asked about again")
    return [
        at_most("videos asked about again, for each kill", repeated / KILLS, 1.0),
        equal(
            "predictions as without kills", int(files[0].read_bytes() == files[1].read_bytes()), 1
        ),
    ]


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def note(log: Path) -> None:
    """Write down each video whose questions are put, before they are answered."""
    ask = Run._predictions

    def noted(self: Run, items, condition, shown):  # type: ignore[no-untyped-def]
        with log.open("a") as file:
            file.writelines(f"{name}\n" for name in {ref.name for i in items for ref in i.media})
        return ask(self, items, condition, shown)

    Run._predictions = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"scores": scores}[sys.argv[1]](*sys.argv[2:])
