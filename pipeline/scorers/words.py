"""Scores of a sample's turns, one per sample."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.scorers.pixels import MOST
from shards.sample import Turn


def caption_length(turns: Sequence[Turn]) -> int:
    """Characters of what is answered, the mean over answers."""
    answers = [len(turn.text) for turn in turns if turn.role == "assistant"]
    return min(sum(answers) // max(len(answers), 1), MOST)
