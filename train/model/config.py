"""The configuration of the whole model, saved beside its weights."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from mixtures.tokens.layout_types import LayoutConfig
from train.model.vision import OryxVisionConfig


class SlowFastConfig(PreTrainedConfig):
    """Tower, projector by name, decoder, and the token rule they were trained with.

    `layout` is the manifest's layout as plain JSON; `visual_token_ids` are never generated: start
    and end of a medium, then the pads that stand for its rows. The tokenizer has `token_count`
    tokens; rows of the decoder beyond them are kept, and never generated. `packed_attention` is
    one of train.model.attention.NAMES; `pool_before_projection` false projects every patch, then
    pools; None is the projector's own order.
    """

    model_type = "slowfast"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": SubConfigSpec(config_class=OryxVisionConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    vision_config: Any = None
    text_config: Any = None
    projector: str = "gsf"
    layout: dict[str, Any] | None = None
    visual_token_ids: list[int] | None = None
    token_count: int | None = None
    packed_attention: str = "sdpa_blocks"
    pool_before_projection: bool | None = None
    tie_word_embeddings: bool = False

    def layout_config(self) -> LayoutConfig:
        """The token rule as `mixtures.tokens.token_plan` takes it."""
        return LayoutConfig(**(self.layout or {}))

    def never_generated(self) -> list[int]:
        """Ids that no answer may hold: those of media, and rows that stand for no token."""
        rows: int = self.text_config.vocab_size
        # rows of the table beyond the tokenizer's tokens (padding of its size) stand for nothing
        count = rows if self.token_count is None else self.token_count
        return [*(self.visual_token_ids or []), *range(count, rows)]

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # transformers looks for the tie at the top
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
