"""What transformers asks of a model besides its forward pass: loading, weights, attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from shards.errors import UserError
from train.model.config import SlowFastConfig
from train.model.initialisation import initialise


class SlowFastPreTrainedModel(PreTrainedModel):
    """A `vision_tower` and a `language_model` of transformers under one config."""

    config_class = SlowFastConfig
    config: SlowFastConfig
    vision_tower: Any
    language_model: Any
    input_modalities: Any = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: Any = ("Block", "Qwen2DecoderLayer")
    _supports_sdpa = True
    _supports_attention_backend = True

    def attention_for(self, wanted: str | None) -> str:
        """The decoder's attention: what packs need is `sdpa` where rows are not packed."""
        return self.config.packed_attention if wanted in (None, "sdpa") else wanted

    @property
    def decoder_attention(self) -> str:
        """The name of the attention that the decoder runs now."""
        return self.language_model.config._attn_implementation

    def refuse_attentions(self, wanted: Mapping[str, Any]) -> None:
        """UserError where attentions are asked of a decoder that keeps none."""
        if wanted.get("output_attentions") and self.decoder_attention != "eager":
            raise UserError(
                'output_attentions: only `attn_implementation="eager"` keeps attentions; load the '
                'model with it, or call set_attn_implementation("eager")'
            )

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """The decoder's can be; the tower attends by SDPA whatever is asked of the decoder."""
        return True

    def set_attn_implementation(
        self, attn_implementation: str | dict[Any, Any], allow_all_kernels: bool = False
    ) -> None:
        """As transformers has it; the choice is the decoder's."""
        if isinstance(attn_implementation, str):
            attn_implementation = dict.fromkeys(("", "text_config"), attn_implementation)
        super().set_attn_implementation(attn_implementation, allow_all_kernels)
        text = self.language_model.config
        text._attn_implementation_internal = self.attention_for(text._attn_implementation)

    def _init_weights(self, module: nn.Module) -> None:
        """What transformers calls for each part; the language model is initialised by then."""
        initialise(module, self.vision_tower)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)
