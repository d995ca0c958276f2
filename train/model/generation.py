"""Answers: what transformers' `generate` must know of media, and the answers to a whole pack."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationMixin

from shards.errors import UserError
from train.data.collate import Pack
from train.model.config import SlowFastConfig
from train.model.inputs import VISUAL_INPUTS, VisualInputs, packed_row


class Answering(Protocol):
    """What `answer` needs of the model."""

    config: SlowFastConfig
    language_model: Any

    @property
    def device(self) -> torch.device: ...
    def embed(self, tokens: Tensor, visual: VisualInputs) -> Tensor: ...


class SlowFastGenerationMixin(GenerationMixin):
    """transformers' generation for a model that is shown media once, with the prompt."""

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, *args: Any, **kwargs: Any
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        """UserError for several answers to one prompt: the rows of media would not follow."""
        if expand_size != 1 and kwargs.get("patches") is not None:
            raise UserError(
                f"generate: {expand_size} sequences per prompt; give the prompt {expand_size} "
                "times, or ask for one"
            )
        parent: Any = super()
        return parent._expand_inputs_for_generation(expand_size, *args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Pixels go in with the first step only; afterwards the cache holds what they became."""
        if not is_first_iteration:
            kwargs |= dict.fromkeys(VISUAL_INPUTS)
        kwargs["is_first_iteration"] = is_first_iteration
        parent: Any = super()
        return parent.prepare_inputs_for_generation(input_ids, *args, **kwargs)

    @torch.no_grad()
    def answer(
        self: Answering, pack: Pack, *, eos_token_id: int, **generation: Any
    ) -> list[list[int]]:
        """The ids generated after each sample of the pack, up to the end token, which is left out.

        `generation` is passed on to transformers' `generate`: `max_new_tokens`, `do_sample`, ...
        The ids of `config.never_generated()` are never generated.
        """
        row = packed_row(pack, self.device)
        lengths = (pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).tolist()
        batch, mask = left_padded(self.embed(row.ids, row.visual), lengths)
        made = self.language_model.generate(
            inputs_embeds=batch,
            attention_mask=mask,
            suppress_tokens=self.config.never_generated(),
            eos_token_id=eos_token_id,
            **({"pad_token_id": eos_token_id} | generation),
        )
        return [list(takewhile(lambda id_: id_ != eos_token_id, ids)) for ids in made.tolist()]


def left_padded(rows: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Rows [T, D] of samples of these lengths -> [B, L, D], zeros in front; and the mask [B, L]."""
    longest = max(lengths)
    batch = torch.stack([pad(part, (0, 0, longest - len(part), 0)) for part in rows.split(lengths)])
    behind = longest - torch.tensor(lengths, device=rows.device)
    mask = torch.arange(longest, device=rows.device) >= behind[:, None]
    return batch, mask.long()
