"""Answers: what transformers' `generate` must know of media, and the answers to a whole pack.

The prompt is embedded once, before the first token. Its rows go along as a tensor of one row per
sequence, which transformers repeats for beams and for several answers, and stand for its ids in
every forward pass whose ids reach back to the prompt: the first one under a cache, all without.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache, GenerationConfig, GenerationMixin

from train.data.collate import Pack
from train.model.config import SlowFastConfig
from train.model.inputs import VISUAL_INPUTS, VisualArguments, VisualInputs, packed_row

NOTHING_SHOWN = VisualArguments(*[None] * len(VISUAL_INPUTS))
REFUSED = ("prefill_chunk_size", "token_healing", "assistant_early_exit")
"""Options of generation that take the prompt apart: its rows would not follow."""


class Answering(Protocol):
    """What generation needs of the model."""

    config: SlowFastConfig
    generation_config: GenerationConfig
    training: bool

    @property
    def device(self) -> torch.device: ...
    def modules(self) -> Any: ...
    def embed(self, tokens: Tensor, visual: VisualInputs) -> Tensor: ...
    def prompt_rows(self, ids: Tensor, shown: VisualArguments) -> Tensor: ...
    def generate(self, *args: Any, **kwargs: Any) -> Any: ...


class SlowFastGenerationMixin(GenerationMixin):
    """transformers' generation for a model that is shown media with the prompt."""

    @torch.no_grad()
    def generate(
        self: Any,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As transformers has it, the processor's visual inputs among the arguments.

        ValueError for placeholders without features, and for options that take the prompt apart.
        """
        # keywords of media are ours; the rest is transformers'
        shown = VisualArguments(*(kwargs.pop(name, None) for name in VISUAL_INPUTS))
        ids = kwargs.get("input_ids") if inputs is None else inputs
        rows = [kwargs.get(name) for name in ("inputs_embeds", "prompt_rows")]
        # embedded once, before the first token: later steps need no pixels
        if ids is not None and rows == [None, None]:
            # refuses placeholders without features, so nothing but text comes by without rows
            made = self.prompt_rows(ids, shown)
            if shown.patches is not None:
                kwargs["prompt_rows"] = made
                kwargs |= _rows_of_assistant(ids, shown, kwargs.get("assistant_model"))
        elif shown.patches is not None:
            raise ValueError(
                "generate: give input_ids with `patches`; inputs_embeds hold them already"
            )
        if kwargs.get("prompt_rows") is not None:
            _refuse_options(self, generation_config, kwargs)
        # checkpointed layers keep no cache
        if self.training and any(getattr(m, "gradient_checkpointing", 0) for m in self.modules()):
            kwargs["use_cache"] = False  # layers that are checkpointed fill none
        parent: Any = super()
        return parent.generate(inputs, generation_config, *args, **kwargs)

    def prepare_inputs_for_generation(
        self: Any,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        prompt_rows: Tensor | None = None,
        assistant_rows: Tensor | None = None,  # noqa: ARG002  # for `_get_candidate_generator`
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of the next forward pass: rows of the prompt wherever its ids would go."""
        parent: Any = super()
        made: dict[str, Any] = parent.prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        # which ids this pass is fed decides whether rows of the prompt stand in for them
        fed = made.get("input_ids")
        if prompt_rows is None or fed is None:
            return made
        # the place of the first fed id in the whole sequence
        first = input_ids.shape[1] - fed.shape[1]
        prompt = prompt_rows.shape[1]
        if first < prompt:
            # ids behind the prompt are text alone
            beyond = self.prompt_rows(fed[:, prompt - first :], NOTHING_SHOWN)
            rows = torch.cat([prompt_rows[:, first:].to(beyond.device), beyond], dim=1)
            made |= {"input_ids": None, "inputs_embeds": rows}
        return made

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        """An assistant of this kind sees the prompt with its own eyes, another reads its ids."""
        given = dict(kwargs["model_kwargs"])
        own = given.pop("assistant_rows", None)
        if given.pop("prompt_rows", None) is not None and own is not None:
            given["prompt_rows"] = own
        parent: Any = super()
        return parent._get_candidate_generator(*args, **kwargs | {"model_kwargs": given})

    @torch.no_grad()
    def answer(
        self: Answering, pack: Pack, *, eos_token_id: int, **generation: Any
    ) -> list[list[int]]:
        """The ids generated after each sample of the pack, up to the end token, which is left out.

        `generation` is passed on to transformers' `generate`: `max_new_tokens`, `do_sample`, ...
        The ids of `config.never_generated()` are never generated.
        """
        row = packed_row(pack, self.device)
        # samples of a pack, left-padded to one batch
        lengths = (pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).tolist()
        rows, mask = left_padded(self.embed(row.ids, row.visual), lengths)
        ids, _ = left_padded(row.ids[:, None], lengths)
        made = self.generate(
            input_ids=ids[..., 0],
            prompt_rows=rows,
            attention_mask=mask,
            suppress_tokens=self.config.never_generated(),
            eos_token_id=eos_token_id,
            **({"pad_token_id": eos_token_id} | generation),
        )
        answers = made[:, ids.shape[1] :].tolist()
        # up to the end token, which is no part of the answer
        return [list(takewhile(lambda id_: id_ != eos_token_id, ids)) for ids in answers]


def _rows_of_assistant(ids: Tensor, shown: VisualArguments, assistant: Any) -> dict[str, Tensor]:
    if not isinstance(assistant, SlowFastGenerationMixin):
        return {}
    seeing: Any = assistant
    return {"assistant_rows": seeing.prompt_rows(ids.to(seeing.device), shown)}


def _refuse_options(
    model: Answering, config: GenerationConfig | None, given: dict[str, Any]
) -> None:
    """ValueError for options of `generate` under which the rows of the prompt would be lost."""
    settings = config or model.generation_config
    chosen = {name: given.get(name) or getattr(settings, name, None) for name in REFUSED}
    named = [name for name, value in chosen.items() if value]
    if "paged" in (given.get("cache_implementation"), settings.cache_implementation):
        named.append("cache_implementation='paged'")
    if named:
        raise ValueError(f"generate: {', '.join(named)} with media; leave it out, or ask without")


def left_padded(rows: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Rows [T, D] of samples of these lengths -> [B, L, D], zeros in front; and the mask [B, L]."""
    longest = max(lengths)
    # padding in front: the next token is the last row of every sample
    batch = torch.stack([pad(part, (0, 0, longest - len(part), 0)) for part in rows.split(lengths)])
    behind = longest - torch.tensor(lengths, device=rows.device)
    mask = torch.arange(longest, device=rows.device) >= behind[:, None]
    return batch, mask.long()
