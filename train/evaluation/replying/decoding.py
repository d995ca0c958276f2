"""Replies behind prompts: greedy ones, and the likelihood of given ones; prompts share a prefix.

The keys and values of a prefix are computed once and stand before each of many prompts; those of
a prompt stand before each reply whose likelihood is asked. B prompts, T tokens, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache

from train.data.collate import Pack
from train.model.generation import left_padded
from train.model.inputs import packed_row
from train.model.modeling import SlowFastForConditionalGeneration


class Prefix(NamedTuple):
    """What stands before every prompt: keys and values of one sequence, and its length."""

    cache: Cache
    length: int


class Prefilled(NamedTuple):
    """Prompts that the model has read: keys and values, mask int64 [B, T], logits [B, V] of what
    comes next."""

    cache: Cache
    mask: Tensor
    logits: Tensor


@torch.no_grad()
def prefix_of(model: SlowFastForConditionalGeneration, pack: Pack) -> Prefix:
    """The keys and values of a pack of one sample, which may show media."""
    row = packed_row(pack, model.device)
    embedded = model.embed(row.ids, row.visual)[None]
    # no logits are asked of it: its last row stands for them
    out = model(inputs_embeds=embedded, use_cache=True, logits_to_keep=1)
    assert out.past_key_values is not None
    return Prefix(out.past_key_values, embedded.shape[1])


def repeated(cache: Cache, rows: Tensor) -> Cache:
    """The sequences `rows` int64 [B] of a cache, as a cache of their own; the first stays whole."""
    other = copy(cache)
    # layers hold their tensors and replace them when they grow: copies of layers suffice
    other.layers = [copy(layer) for layer in cache.layers]
    other.batch_select_indices(rows)
    return other


@torch.no_grad()
def prefilled(model: SlowFastForConditionalGeneration, pack: Pack) -> Prefilled:
    """The samples of a pack, each as a prompt."""
    row = packed_row(pack, model.device)
    lengths = (pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).tolist()
    rows, mask = left_padded(model.embed(row.ids, row.visual), lengths)
    # left-padded: the last column is the last token of every prompt
    out = model(inputs_embeds=rows, attention_mask=mask, use_cache=True, logits_to_keep=1)
    assert out.past_key_values is not None
    return Prefilled(out.past_key_values, mask, out.logits[:, -1])


@torch.no_grad()
def prefilled_behind(
    model: SlowFastForConditionalGeneration, prefix: Prefix, prompts: Sequence[Sequence[int]]
) -> Prefilled:
    """Prompts of text alone, each behind the prefix."""
    ids, mask = _behind(prefix, prompts, model.device)
    cache = repeated(prefix.cache, torch.zeros(len(ids), dtype=torch.int64, device=ids.device))
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=_positions(mask, ids.shape[1]),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return Prefilled(cache, mask, out.logits[:, -1])


@torch.no_grad()
def greedy_behind(
    model: SlowFastForConditionalGeneration,
    prefix: Prefix,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end: int,
) -> list[list[int]]:
    """The greedy reply to each prompt of text alone behind the prefix, without the `end` token."""
    ids, mask = _behind(prefix, prompts, model.device)
    cache = repeated(prefix.cache, torch.zeros(len(ids), dtype=torch.int64, device=ids.device))
    # a mask longer than the ids tells `generate` what lies in the cache
    made = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=cache,
        max_new_tokens=max_new_tokens,
        suppress_tokens=model.config.never_generated(),
        eos_token_id=end,
        pad_token_id=end,
        do_sample=False,
    )
    return [
        list(takewhile(lambda id_: id_ != end, row)) for row in made[:, ids.shape[1] :].tolist()
    ]


@torch.no_grad()
def log_likelihoods(
    model: SlowFastForConditionalGeneration,
    prefilled: Prefilled,
    replies: Sequence[Sequence[Sequence[int]]],
) -> list[list[float]]:
    """log p(reply | prompt) in nats of each reply to each prompt, their end tokens counted."""
    device = prefilled.logits.device
    every = [reply for of_prompt in replies for reply in of_prompt]
    owner = torch.tensor(
        [i for i, of_prompt in enumerate(replies) for _ in of_prompt], device=device
    )
    # the last token of a reply is predicted and never fed
    ids = [torch.tensor(reply, device=device) for reply in every]
    fed = pad_sequence([reply[:-1] for reply in ids], batch_first=True)
    real = pad_sequence([torch.ones_like(reply[:-1]) for reply in ids], batch_first=True)
    # the first token of a reply is predicted by its prompt, each other one by the token before
    scores = [prefilled.logits[owner, None].float()]
    if fed.shape[1]:
        mask = torch.cat([prefilled.mask[owner], real], dim=1)
        out = model(
            input_ids=fed,
            attention_mask=mask,
            position_ids=_positions(mask, fed.shape[1]),
            past_key_values=repeated(prefilled.cache, owner),
            use_cache=True,
        )
        scores.append(out.logits.float())
    spoken = pad_sequence(ids, batch_first=True)
    each = torch.cat(scores, dim=1).log_softmax(-1).gather(-1, spoken[..., None])[..., 0]
    # [R, L]: the first token is always real, padding behind a shorter reply counts 0
    kept = pad(real, (1, 0), value=1)
    sums = iter((each * kept).sum(1).tolist())
    return [[next(sums) for _ in of_prompt] for of_prompt in replies]


def _behind(
    prefix: Prefix, prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left [B, S], and the mask of prefix and prompts [B, P + S]."""
    rows = torch.tensor([id_ for prompt in prompts for id_ in prompt], device=device)
    ids, mask = left_padded(rows[:, None], [len(prompt) for prompt in prompts])
    return ids[..., 0], pad(mask, (prefix.length, 0), value=1)


def _positions(mask: Tensor, last: int) -> Tensor:
    """Positions of the last so many tokens: padding counts for nothing."""
    return (mask.cumsum(1) - 1).clamp(min=0)[:, -last:]
