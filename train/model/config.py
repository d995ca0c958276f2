"""The configuration of the whole model, saved beside its weights."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from train.model.vision import OryxVisionConfig


class SlowFastConfig(PreTrainedConfig):
    """Tower, projector by name, decoder, and the token rule they were trained with.

    `layout` is the manifest's layout as plain JSON; `visual_token_ids` are the ids that stand for
    visual rows and frames of them: never generated.
    """

    model_type = "slowfast"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": OryxVisionConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    vision_config: Any = None
    text_config: Any = None
    projector: str = "gsf"
    layout: dict[str, Any] | None = None
    visual_token_ids: list[int] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
