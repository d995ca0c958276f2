"""What transformers asks of a model besides its forward pass: loading, weights, attention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from shards.errors import UserError
from train.model.calls.backbone import Backbone
from train.model.calls.loading import check_bytes, check_whole, keeping_whole, loaded_as, typed
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
    # accelerate puts a block whole on one device; the decoder's class is that of Qwen2
    _no_split_modules: Any = ("Block", "Qwen2DecoderLayer")
    _supports_sdpa = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        dtype: Any = None,
        quantization_config: Any = None,
        output_loading_info: bool = False,
        verify: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As transformers has it. `dtype` may differ by part: {"": torch.bfloat16, "vision_config":
        torch.float32}; the projector is of "". Quantisation leaves out tower, projector and head
        unless `quantization_config` names what it leaves out. `verify`: every file of a folder has
        the digest that its data.json promises, and no tensor is missing or too much.
        """
        if verify:
            check_bytes(Path(pretrained_model_name_or_path))
        # a dictionary of types by part, or one for all
        with typed(kwargs.pop("torch_dtype", None) if dtype is None else dtype) as main:
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path,
                *args,
                dtype=main,
                quantization_config=keeping_whole(quantization_config),
                # asked for always: `verify` reads it
                output_loading_info=True,
                **kwargs,
            )
        if verify:
            check_whole(pretrained_model_name_or_path, loaded[1])
        return loaded if output_loading_info else loaded[0]

    def cast_weights(self, dtype: torch.dtype) -> None:
        """Cast parameters and no buffer: rotary frequencies in bf16 are of no use from position
        1,000 on."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)
        self.config.dtype = dtype

    def _get_dtype_plan(self, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """What transformers asks for types other than that of the whole."""
        plan: dict[str, torch.dtype] = super()._get_dtype_plan(dtype)
        return {**plan, **loaded_as()}

    def attention_for(self, wanted: str | None) -> str:
        """The decoder's attention: what packs need is `sdpa` where rows are not packed."""
        # sdpa is what both run where nothing is packed
        return self.config.packed_attention if wanted in (None, "sdpa") else wanted

    @property
    def decoder_attention(self) -> str:
        """The name of the attention that the decoder runs now."""
        name: str = self.language_model.config._attn_implementation
        return name

    @property
    def base_model(self) -> nn.Module:
        """The model without its head."""
        return Backbone(self)

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
            # a name alone is for the decoder: the tower has SDPA only
            attn_implementation = dict.fromkeys(("", "text_config"), attn_implementation)
        super().set_attn_implementation(attn_implementation, allow_all_kernels)
        text = self.language_model.config
        text._attn_implementation_internal = self.attention_for(text._attn_implementation)

    def _init_weights(self, module: nn.Module) -> None:
        """What transformers calls for each part; the language model is initialised by then."""
        initialise(module, self.vision_tower)

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's table of word vectors."""
        table: nn.Module = self.language_model.get_input_embeddings()
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace it, as resizing the vocabulary does."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The decoder's last layer."""
        head: nn.Module = self.language_model.get_output_embeddings()
        return head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace it."""
        self.language_model.set_output_embeddings(new_embeddings)
