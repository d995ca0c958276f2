"""Two models on the same questions: how much better one is, with the error of paired differences.

scores.json, another scores.json ─► predictions beside both ─► pairs by id ─► rows of a table
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from shards.errors import UserError
from train.evaluation.predictions import Prediction, head_of, read_lines
from train.evaluation.rules import prompts
from train.evaluation.statistics import Z95, paired

SCORES = "slowfast-mix/scores/1"
"""The schema of the scores of an evaluation."""
COMPARABLE = ("benchmark", "questions", "shown")
"""What two files of predictions must agree in; where else they differ is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One question as two models answered it; a credit is None where nobody scores it."""

    cluster: str
    group: str
    replies: tuple[str, str]
    credits_: tuple[float | None, float | None]


def against(
    other: Path, files: Mapping[str, Mapping[str, Path]], pathways: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A row for each set and condition, and for each task file, that both have.

    `files` holds the predictions of this evaluation by set and condition, `pathways` the scores of
    its task files. UserError where the other evaluation has none of them, or asked other questions.
    """
    rows = []
    for name, by_condition in files.items():
        for condition, file in by_condition.items():
            theirs = other.with_name(f"{other.stem}.{name}.{condition}.jsonl")
            if theirs.is_file():
                rows.append(of_benchmark(name, condition, file, theirs))
    rows += of_tasks(other, pathways)
    if not rows:
        raise UserError(
            f"--against {other}: neither predictions of these sets lie beside it, nor scores of "
            "these task files in it; evaluate that model on the same ones"
        )
    return rows


def scores_in(path: Path) -> dict[str, Any]:
    """The scores that an evaluation wrote; UserError for any other file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--against {path}: not readable ({error}); give a scores.json") from error
    if not isinstance(value, dict) or value.get("schema") != SCORES:
        raise UserError(
            f"--against {path}: no scores of an evaluation by this version; evaluate that model "
            "again"
        )
    return value


def of_benchmark(name: str, condition: str, our_file: Path, their_file: Path) -> dict[str, Any]:
    """The row of one set under one condition."""
    heads = head_of(our_file), head_of(their_file)
    # differences of scores over other questions would mean nothing, whatever their error
    for key in COMPARABLE:
        if heads[0][key] != heads[1].get(key):
            raise UserError(
                f"--against: {their_file} is about other questions ({key}: "
                f"{heads[1].get(key)!r}, here {heads[0][key]!r}); evaluate that model on this copy"
            )
    mean_of = prompts(name).mean_of
    other = {prediction.id: prediction for prediction in read_lines(their_file)}
    pairs = [
        pair_of(prediction, other[prediction.id], mean_of)
        for prediction in read_lines(our_file)
        # paired: a question counts where both were asked, so that what one lacks favours neither
        if prediction.id in other and not prediction.missing and not other[prediction.id].missing
    ]
    # what may differ (model, precision, batch) is told beside the row, for people to judge
    differs = [key for key in heads[0] if heads[0][key] != heads[1].get(key)]
    return {"set": name, "shown": condition, "differs": differs} | compared(pairs, bool(mean_of))


def pair_of(ours: Prediction, theirs: Prediction, mean_of: str) -> Pair:
    """Two predictions of one question."""
    return Pair(
        cluster=ours.video,
        group=ours.groups.get(mean_of, [""])[0],
        replies=(ours.reply, theirs.reply),
        credits_=(ours.credit, theirs.credit),
    )


def of_tasks(other: Path, pathways: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each task file that both have, under each condition that both have."""
    there = scores_in(other)["pathways"]
    return [
        {"set": name, "shown": shown, "differs": []} | _of_task(name, other, found, theirs)
        for shown, result in pathways.items()
        for name, found in result["tasks"].items()
        if (theirs := there.get(shown, {}).get("tasks", {}).get(name))
    ]


def _of_task(
    name: str, other: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, Any]:
    # task files have no digest in the scores: their questions are compared one by one
    asked = [[(a["record"], a["question"]) for a in each["answers"]] for each in (ours, theirs)]
    if asked[0] != asked[1]:
        raise UserError(f"--against {other}: {name} had other questions; evaluate that model anew")
    pairs = [
        Pair(
            cluster=one["record"],
            group="",
            replies=(one["said"], two["said"]),
            credits_=(one["credit"], two["credit"]),
        )
        for one, two in zip(ours["answers"], theirs["answers"], strict=True)
    ]
    return compared(pairs, grouped=False)


def compared(pairs: Sequence[Pair], grouped: bool) -> dict[str, Any]:
    """Means of both, their difference with its clustered error, and the share of equal replies."""
    # the mean of the differences is the difference of the means, but with the error of pairs: what
    # is hard for both cancels out (Miller, arXiv 2411.00640)
    scored = [pair for pair in pairs if None not in pair.credits_]
    ours = [pair.credits_[0] or 0.0 for pair in scored]
    theirs = [pair.credits_[1] or 0.0 for pair in scored]
    difference = paired(
        theirs,
        ours,
        [pair.cluster for pair in scored],
        [pair.group for pair in scored] if grouped else None,
    )
    # paired with zeros: each model's own mean, weighed over clusters and groups as the difference
    # is
    zero = [0.0] * len(scored)
    clusters = [pair.cluster for pair in scored]
    groups = [pair.group for pair in scored] if grouped else None
    same = sum(pair.replies[0] == pair.replies[1] for pair in pairs)
    return {
        "questions": len(scored),
        "clusters": difference.clusters,
        "ours": paired(zero, ours, clusters, groups).mean,
        "theirs": paired(zero, theirs, clusters, groups).mean,
        "difference": difference.mean,
        # one cluster has no spread to take an error from
        "error": difference.error if difference.clusters > 1 else None,
        "equal_replies": same / len(pairs) if pairs else None,
    }


def against_table(other: str, differences: Sequence[Mapping[str, Any]]) -> Table:
    """The rows for people; an interval that excludes 0 is marked."""
    table = Table(title=f"against {other}: paired differences, clustered by video")
    for title in ("set", "shown"):
        table.add_column(title)
    for title in ("questions", "here", "there", "difference", "95 %", "equal replies"):
        table.add_column(title, justify="right")
    table.add_column("differs in")
    for row in differences:
        equal = row["equal_replies"]
        table.add_row(
            row["set"],
            row["shown"],
            str(row["questions"]),
            f"{row['ours']:.3f}",
            f"{row['theirs']:.3f}",
            f"{row['difference']:+.3f}",
            interval(row["difference"], row["error"]),
            "" if equal is None else f"{equal:.2%}",
            ", ".join(row["differs"]),
        )
    return table


def interval(mean: float, error: float | None) -> str:
    """95 % around a difference; a star where 0 is outside."""
    if error is None:
        return ""
    # the normal approximation, as in `train.evaluation.statistics.Estimate`
    low, high = mean - Z95 * error, mean + Z95 * error
    return f"{low:+.3f}..{high:+.3f}{'' if low <= 0 <= high else ' *'}"
