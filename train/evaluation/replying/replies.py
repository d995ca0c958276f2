"""What the model says to a batch of prompts: generated text, or the likeliest of given replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixtures.tokens.text import IM_END, TextCodec
from train.data.collate import Pack
from train.evaluation.replying.decoding import (
    Prefilled,
    Prefix,
    greedy_behind,
    log_likelihoods,
    prefilled,
    prefilled_behind,
)
from train.evaluation.replying.prompted import Prompt
from train.model.modeling import SlowFastForConditionalGeneration


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A reply; `cut` where it was as long as it may be, and did not end by itself.

    Where options were given, `chosen` is the number of the likeliest and `likelihoods` has log p of
    each.
    """

    text: str = ""
    cut: bool = False
    chosen: int | None = None
    likelihoods: tuple[float, ...] = ()


def replies(
    model: SlowFastForConditionalGeneration,
    pack: Pack,
    batch: Sequence[Prompt],
    codec: TextCodec,
    max_new_tokens: int,
) -> dict[int, Said]:
    """Of prompts that share nothing, as one left-padded batch; by the prompts' numbers.

    All of them have replies to choose from, or none.
    """
    # a reply of several tokens is scored whole, as lm-evaluation-harness does with `loglikelihood`
    if batch[0].replies:
        return likeliest(model, prefilled(model, pack), batch)
    # the turn's end mark ends a reply; rows that ended are padded with it
    end = codec.token_id(IM_END)
    made = model.answer(
        pack,
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=end,
        do_sample=False,
    )
    return spoken(batch, made, codec, max_new_tokens)


def replies_behind(
    model: SlowFastForConditionalGeneration,
    prefix: Prefix,
    batch: Sequence[Prompt],
    codec: TextCodec,
    max_new_tokens: int,
) -> dict[int, Said]:
    """The same of prompts that begin with the prefix, which is not computed again."""
    # the prefix's keys and values were computed once for all of them
    rest = [prompt.ids[prefix.length :] for prompt in batch]
    if batch[0].replies:
        return likeliest(model, prefilled_behind(model, prefix, rest), batch)
    end = codec.token_id(IM_END)
    made = greedy_behind(model, prefix, rest, max_new_tokens=max_new_tokens, end=end)
    return spoken(batch, made, codec, max_new_tokens)


def likeliest(
    model: SlowFastForConditionalGeneration, read: Prefilled, batch: Sequence[Prompt]
) -> dict[int, Said]:
    """Of each prompt's replies the one of the greatest likelihood, the first of equal ones."""
    found = log_likelihoods(model, read, [prompt.replies for prompt in batch])
    return {
        # summed and not averaged: longer options are less likely, as the sets' authors score them
        prompt.number: Said(chosen=each.index(max(each)), likelihoods=tuple(each))
        for prompt, each in zip(batch, found, strict=True)
    }


def spoken(
    batch: Sequence[Prompt],
    generated: Sequence[Sequence[int]],
    codec: TextCodec,
    max_new_tokens: int,
) -> dict[int, Said]:
    """Generated ids as text."""
    return {
        # as many as allowed: the end mark, which is taken off, did not come
        prompt.number: Said(text=codec.decode(ids).strip(), cut=len(ids) >= max_new_tokens)
        for prompt, ids in zip(batch, generated, strict=True)
    }
