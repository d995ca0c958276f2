"""SigLIP as a scorer of a pool: a clip's frames against the questions of a sample that shows it.

    python -m pipeline score POOL --scorer train.evaluation.relevance:score_frames \\
        --per sample_frame --model SIGLIP

The pipeline knows it by that name alone, and calls it in its workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.errors import UserError
from shards.sample import Turn
from train.data import frame_relevance
from train.data.frame_relevance import STEPS, Relevance

SCORES_WITH = (frame_relevance,)
"""Modules whose source decides scores besides this one's."""
MOST = 65_535
"""Of a cosine of 1; 0 is one of -1."""


def score_frames(
    frames: Sequence[NDArray[np.uint8]], turns: Sequence[Turn], model: Path | None = None
) -> list[int]:
    """How well each frame fits the questions of a sample, the best of them: 0 to 65,535.

    `model` is a folder of SigLIP or SigLIP 2, as transformers saves it.
    """
    if model is None:
        raise UserError(
            "train.evaluation.relevance:score_frames: wants a model; give --model FOLDER with "
            "SigLIP or SigLIP 2"
        )
    relevance = _relevance(model)
    asked = [turn.text for turn in turns if turn.role == "user"] or [turns[0].text]
    # cosines in steps of a millionth, each frame's best
    best = [max(scores) for scores in zip(*relevance.of_arrays(frames, asked), strict=True)]
    return [(score + STEPS) * MOST // (2 * STEPS) for score in best]


@lru_cache(maxsize=1)
def _relevance(folder: Path) -> Relevance:
    """One model in each worker."""
    return Relevance(folder)
