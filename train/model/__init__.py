"""A line belongs here if it is part of the network, or its face towards transformers."""

from __future__ import annotations


def register() -> None:
    """Make transformers' Auto classes know model and processor; safe to call again."""
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        AutoProcessor,
    )

    from train.model.config import SlowFastConfig
    from train.model.modeling import SlowFastForConditionalGeneration
    from train.model.processing import SlowFastProcessor
    from train.model.vision import OryxVisionConfig

    AutoConfig.register(OryxVisionConfig.model_type, OryxVisionConfig, exist_ok=True)
    AutoConfig.register(SlowFastConfig.model_type, SlowFastConfig, exist_ok=True)
    for auto in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto.register(SlowFastConfig, SlowFastForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(SlowFastConfig, SlowFastProcessor, exist_ok=True)
