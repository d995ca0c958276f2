"""The model without its head, as callers of transformers know it (`base_model`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from train.model.calls.keywords import refuse_others
from train.model.inputs import VISUAL_INPUTS, VisualArguments


class Backbone(nn.Module):
    """Last hidden states of a padded batch, for trainers that bring a head of their own (TRL)."""

    _tp_plan: Any = None  # transformers asks a base model for its parallel plans
    _pp_plan: Any = None

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "whole", whole)  # seen, not owned: its weights have one name

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """`last_hidden_state` [B, T, D]; the arguments are those of the whole model's forward."""
        shown = VisualArguments(*(kwargs.pop(name, None) for name in VISUAL_INPUTS))
        refuse_others("base_model", kwargs, ("output_hidden_states",), "leave it out")
        whole: Any = self.whole
        return whole.language_model.model(
            inputs_embeds=whole.prompt_rows(input_ids, shown),
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            **kwargs,
        )
