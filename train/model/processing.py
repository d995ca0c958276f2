"""Conversations with media -> the model's inputs, by the same rules as training.

Counts come from `mixtures.tokens.token_plan`, ids and masks from `mixtures.tokens.text`, frames
from `train.data.user_media`: what a user asks about is sampled, scaled and laid out as what the
model was trained on. The Jinja template is for people and other tools; ids are made without it, so
that no text can spell a control token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from mixtures.tokens.frame_view import ClipView
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import IM_END, TextCodec
from shards.profile import Profile
from shards.sample import Turn
from train.data.chat_messages import given_scores, read_messages
from train.data.collate import MemoryFrames, Pack, RenderedSample, VisualSlots, build_pack
from train.data.frame_relevance import wants_scores
from train.data.jpeg_patches import Frames, open_jpegs
from train.data.render import Rules, render
from train.data.user_media import Seen

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- set content = message['content'] -%}
{%- if content is string -%}{%- set content = [{'type': 'text', 'text': content}] -%}{%- endif -%}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}
{%- for part in content -%}{{- part['text'] -}}{%- endfor -%}
{{- '<|im_end|>' -}}
{%- endgeneration -%}
{%- else -%}
{%- for part in content -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}
{%- else -%}{{- '<|vision_start|><|' + part['type'] + '_pad|><|vision_end|>' -}}{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


class SlowFastProcessor(ProcessorMixin):
    """A tokenizer and the rules of a manifest: token layout, view of videos, media profile.

    A message's content is a text, or a list of parts: {"type": "text", "text": ...}, {"type":
    "image", "image": path or PIL image}, {"type": "video", "video": path}, or {"type": "video",
    "video": frames uint8 [N, H, W, 3], "seconds": times}. Rules that select frames by "query" need
    scores, one integer per frame: a video's own "scores", or what `relevance` (such as
    train.data.frame_relevance.Relevance) makes of its JPEGs and the message's text.
    """

    relevance: Callable[[Sequence[bytes], str], Sequence[int]] | None = None

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | None = None,
        layout: dict[str, Any] | None = None,
        frames: dict[str, Any] | None = None,
        profile: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.layout = layout or asdict(LayoutConfig())
        self.frames = frames or asdict(View())
        self.profile = profile or Profile().to_json()

    @cached_property
    def rules(self) -> Rules:
        """The same as dataclasses; UserError where the tokenizer lacks Qwen2.5's specials."""
        text = self.tokenizer.backend_tokenizer.to_str().encode()
        codec = TextCodec(text, where="the processor's tokenizer")
        return Rules(view=View(**self.frames), layout=LayoutConfig(**self.layout), codec=codec)

    def to_dict(self) -> dict[str, Any]:
        """What processor_config.json holds."""
        names = ("layout", "frames", "profile")
        rules = {name: getattr(self, name) for name in names}
        return {"processor_class": type(self).__name__, **rules}

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "patches", "grids", "seconds", "slots", "memory"]

    def apply_chat_template(  # type: ignore[override]  # no tools, documents or audio here
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> Any:
        """The conversation, or a list of them, as text, or (`tokenize=True`) as model inputs."""
        if not tokenize:
            return super().apply_chat_template(
                conversation, chat_template, add_generation_prompt=add_generation_prompt, **kwargs
            )
        single = not conversation or isinstance(conversation[0], dict)
        found = self(
            [conversation] if single else conversation,
            add_generation_prompt=add_generation_prompt,
            return_assistant_tokens_mask=return_assistant_tokens_mask,
        )
        return found if return_dict else found["input_ids"]

    def __call__(
        self,
        conversations: Sequence[Sequence[dict[str, Any]]],
        *,
        add_generation_prompt: bool = False,
        return_assistant_tokens_mask: bool = False,
    ) -> BatchFeature:
        """Inputs of conversations, left-padded to the longest: B rows of T tokens.

        `input_ids`, `attention_mask` (and `assistant_masks`) int64 [B, T]; `patches`, `grids`,
        `seconds` (the times of the frames looked at) as in train.data.collate.Pack; `slots` and
        `memory` say where they stand. ValueError names the conversation and what does not fit.
        """
        # one pack of all of them, then its rows are moved to where padding puts them
        samples = [
            self._render(f"conversation {i}", messages, answer=add_generation_prompt)
            for i, messages in enumerate(conversations)
        ]
        pack = build_pack(samples, self.rules.layout)
        lengths = np.diff(pack.cu_seqlens)
        places, mask = _left_padded(lengths)
        ids = np.full(mask.size, self.rules.codec.token_id(IM_END), np.int64)
        ids[places] = pack.tokens
        inputs = {"input_ids": ids, "attention_mask": mask.ravel().astype(np.int64)}
        if return_assistant_tokens_mask:
            learned = np.zeros(mask.size, np.int64)
            learned[places] = np.concatenate([s.text.supervised for s in samples])
            inputs["assistant_masks"] = learned
        values = {name: torch.from_numpy(v.reshape(mask.shape)) for name, v in inputs.items()}
        return BatchFeature(values | _visual(pack, places))

    def _render(
        self, key: str, messages: Sequence[dict[str, Any]], *, answer: bool
    ) -> RenderedSample:
        turns, seen = read_messages(key, messages, self.profile)
        clips = [one.clip for one in seen]
        scores = self._scores(messages, turns, seen)

        def opened(number: int, look: ClipView, used: Sequence[int]) -> Frames:
            return open_jpegs(seen[number].jpegs, look, used, clips[number].clip_id)

        try:
            return render(key, turns, clips, opened, self.rules, answer=answer, scores=scores)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error

    def _scores(
        self, messages: Sequence[dict[str, Any]], turns: Sequence[Turn], seen: Sequence[Seen]
    ) -> dict[int, Sequence[int]]:
        """By medium, where it carries scores, or they are wanted and can be made."""
        scores = {i: one for i, one in enumerate(given_scores(messages)) if one is not None}
        asked = {medium: turn.text for turn in turns for medium, _ in turn.media}
        for number, one in enumerate(seen):
            wanted = number not in scores and wants_scores(one.clip, self.rules.view)
            if wanted and self.relevance is not None:
                scores[number] = self.relevance(one.jpegs, asked[number])
        return scores


def processor_of(rules: Rules, profile: Profile, tokenizer_json: str) -> SlowFastProcessor:
    """The processor of a manifest's rules; `tokenizer_json` is a tokenizer file."""
    specials = {"eos_token": IM_END, "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_json, **specials)
    return SlowFastProcessor(
        tokenizer,
        layout=asdict(rules.layout),
        frames=asdict(rules.view),
        profile=profile.to_json(),
    )


def _left_padded(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each token of a flat row goes in [B, T] flattened; and which places hold one."""
    longest = int(lengths.max(initial=0))
    mask = np.arange(longest) >= (longest - lengths)[:, None]
    return np.flatnonzero(mask), mask


def _visual(pack: Pack, places: np.ndarray) -> dict[str, Any]:
    """The visual inputs, their positions moved to the padded batch."""
    slots = {f.name: torch.from_numpy(getattr(pack.slots, f.name)) for f in fields(VisualSlots)}
    memory = {f.name: torch.from_numpy(getattr(pack.memory, f.name)) for f in fields(MemoryFrames)}
    for part in (slots, memory):
        at = part["position"].numpy()
        sample = np.searchsorted(pack.cu_seqlens[1:], at, side="right")
        part["position"] = torch.from_numpy(places[at])
        part["sample"] = torch.from_numpy(sample)
    return {
        "patches": torch.from_numpy(pack.patches),
        "grids": torch.from_numpy(pack.grids),
        "seconds": torch.from_numpy(pack.times),
        "slots": slots,
        "memory": memory,
    }
