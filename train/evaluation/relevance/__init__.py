"""A line belongs here if it scores the frames of a pool's clips by what its samples ask."""

from train.evaluation.relevance.siglip import score_frames

__all__ = ["score_frames"]
