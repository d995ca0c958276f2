"""A line belongs here if it turns a clip's frames or a sample's turns into integers; no model."""

from pipeline.scorers.pixels import brightness, motion, sharpness, text_density
from pipeline.scorers.words import caption_length

__all__ = ["brightness", "caption_length", "motion", "sharpness", "text_density"]

PER = dict.fromkeys(("brightness", "motion", "sharpness", "text_density"), "frame")
PER["caption_length"] = "sample"
"""What each of these scores."""
