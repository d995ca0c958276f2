"""Conversations and prompts with media -> the model's inputs, by the same rules as training.

Counts come from `mixtures.tokens.token_plan`, ids and masks from `mixtures.tokens.text`, frames
from `train.data.user_media`: what a user asks about is sampled, scaled and laid out as what the
model was trained on. The Jinja template is for people and other tools; ids are made without it, so
that no text can spell a control token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerFast, ProcessorMixin

from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import IM_END, TextCodec
from shards.errors import UserError
from shards.profile import Profile
from train.data.asked.chat_messages import read_messages
from train.data.asked.prompts import read_prompts
from train.data.asked.user_samples import Scorer, UserSamples
from train.data.render import Rules
from train.model.calls.call_options import CallOptions, call_options
from train.model.calls.keywords import refuse_others
from train.model.calls.padded_batch import SlowFastInputs, padded_inputs

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
    "image", "image": ...}, or {"type": "video", "video": ...} (what may be shown says
    train.data.user_media.UserMedium; "url", "path" and "base64" are other names of it). Frames in
    memory need their times, as "seconds" or "video_metadata". Rules that select frames by "query"
    need scores, one integer per frame: a video's own "scores", or what `relevance` (such as
    train.data.frame_relevance.Relevance) makes of its JPEGs and the message's text.
    """

    relevance: Scorer | None = None

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
        # the tokenizer's own bytes: the codec counts as planning did
        text = self.tokenizer.backend_tokenizer.to_str().encode()
        codec = TextCodec(text, where="the processor's tokenizer")
        return Rules(view=View(**self.frames), layout=LayoutConfig(**self.layout), codec=codec)

    @cached_property
    def media_profile(self) -> Profile:
        """How a user's media are stored before they are shown."""
        return Profile.from_json(self.profile, "processor_config.json")

    def to_dict(self) -> dict[str, Any]:
        """What processor_config.json holds."""
        names = ("layout", "frames", "profile")
        rules = {name: getattr(self, name) for name in names}
        return {"processor_class": type(self).__name__, **rules}

    @property
    def model_input_names(self) -> list[str]:
        """What `forward` takes of the processor's inputs."""
        return ["input_ids", "attention_mask", "patches", "grids", "seconds", "slots", "memory"]

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        tools: Any = None,
        documents: Any = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: Any = "auto",
        return_dict: bool = True,
        load_audio_from_video: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        sanitize_control_tokens: bool = True,
        **kwargs: Any,
    ) -> Any:
        """The conversation, or a list of them, as text, or (`tokenize=True`) as model inputs.

        Ids are made by the manifest's rules: a template of one's own gives text only. Keywords of
        transformers' processors (`train.model.calls.call_options`) act with `tokenize=True`, beside
        the others or in `processor_kwargs`; TypeError names one that nothing acts on.
        """
        # the template is for people: with tokenize=True ids follow the manifest's rules
        is_own = chat_template in (None, self.chat_template)
        unheard = {"load_audio_from_video": load_audio_from_video or None}
        if is_own:
            unheard |= {"tools": tools, "documents": documents}
        why = "the model hears no audio, and its template has no tools or documents"
        refuse_others("apply_chat_template", unheard, (), why)
        flags = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "return_assistant_tokens_mask": return_assistant_tokens_mask,
        }
        if not tokenize:
            if is_own:
                refuse_others("apply_chat_template(tokenize=False)", kwargs, (), "leave it out")
            given = {"tools": tools, "documents": documents, **flags, **kwargs}
            return super().apply_chat_template(conversation, chat_template, **given)
        if not is_own:
            raise UserError(
                "apply_chat_template: chat_template with tokenize=True; ids follow the model's, so "
                "render yours with tokenize=False and give that to processor(text=...)"
            )
        given = {"return_tensors": None if return_tensors == "auto" else return_tensors}
        given |= {"sanitize_control_tokens": sanitize_control_tokens}
        inputs = self._talks(conversation, flags, given | (processor_kwargs or {}) | kwargs)
        return inputs if return_dict else inputs["input_ids"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        **kwargs: Any,
    ) -> SlowFastInputs:
        """Inputs of prompts that are in the template already: B rows of T tokens, padded.

        Images and videos belong to the pads of the texts, in order. `input_ids`, `attention_mask`
        (and `assistant_masks`) int64 [B, T]; `patches`, `grids`, `seconds` (the times of the frames
        looked at) as in train.data.collate.Pack; `slots` and `memory` say where they stand, and of
        which row (`sample`). ValueError names the text and what does not fit.
        """
        refuse_others("processor", {"audio": audio}, (), "the model hears no audio")
        options = self._options(kwargs)
        prompts = read_prompts(text, images, videos, options.metadata)
        rendering = self._samples(options)
        # rendered as training renders stored samples
        samples = [rendering.prompt(f"text {i}", prompt) for i, prompt in enumerate(prompts)]
        return padded_inputs(samples, options, self.rules)

    def _options(self, given: Mapping[str, Any]) -> CallOptions:
        return call_options(given, self.tokenizer.padding_side, self.rules.view, self.media_profile)

    def _talks(
        self, conversation: Any, flags: dict[str, Any], given: dict[str, Any]
    ) -> SlowFastInputs:
        """The inputs of one conversation, or of a list of them."""
        unfinished = flags["continue_final_message"]
        answer = flags["add_generation_prompt"]
        masks = flags["return_assistant_tokens_mask"]
        # "content": transformers continues the last part of the message
        if unfinished not in (True, False, "content"):
            raise UserError(f"continue_final_message={unfinished!r}; give True or False")
        if unfinished and (answer or masks):
            clash = "add_generation_prompt" if answer else "return_assistant_tokens_mask"
            raise UserError(f"continue_final_message with {clash}; leave one out")
        options = self._options(given)
        if options.metadata is not None:
            raise UserError("video_metadata: give it in the video's own part of the message")
        # one conversation, or a list of them
        single = not conversation or isinstance(conversation[0], Mapping)
        rendering = self._samples(options)
        samples = []
        for number, messages in enumerate([conversation] if single else conversation):
            key = f"conversation {number}"
            talk = read_messages(key, messages)
            samples.append(rendering.talk(key, talk, answer=answer, unfinished=bool(unfinished)))
        return padded_inputs(samples, options, self.rules, masks=masks)

    def _samples(self, options: CallOptions) -> UserSamples:
        # frames per second and cap may be given for this call alone
        rules = replace(self.rules, view=options.view)
        return UserSamples(rules=rules, profile=self.media_profile, relevance=self.relevance)


def processor_of(rules: Rules, profile: Profile, tokenizer_json: str) -> SlowFastProcessor:
    """The processor of a manifest's rules; `tokenizer_json` is a tokenizer file."""
    # left: `generate` goes on at the last column of every row
    specials = {"eos_token": IM_END, "pad_token": "<|endoftext|>", "padding_side": "left"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_json, **specials)
    return SlowFastProcessor(
        tokenizer,
        layout=asdict(rules.layout),
        frames=asdict(rules.view),
        profile=profile.to_json(),
    )
