"""A saved model that is shown media as training data is decoded, and answers questions."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from mixtures.tokens.frame_view import ClipView, view_clip
from mixtures.tokens.text import IM_END
from shards.errors import UserError
from shards.ids import sha256_file, short_hash
from shards.profile import Profile
from shards.sample import Turn
from train.data.collate import RenderedSample, build_pack
from train.data.frame_relevance import Relevance, wants_scores
from train.data.jpeg_patches import Frames, open_jpegs
from train.data.render import Rules, render
from train.data.user_media import Seen, see_files
from train.evaluation.replying.decoding import prefix_of
from train.evaluation.replying.prompted import (
    Prompt,
    Shown,
    batches,
    beginning,
    shared_tokens,
    without_pixels,
)
from train.evaluation.replying.replies import Said, replies, replies_behind
from train.evaluation.tasks import Medium
from train.model.modeling import SlowFastForConditionalGeneration
from train.model_folder import load_saved

BATCH = 64  # questions at most
DECODE_THREADS = 2
DECODE_GROUP = 8  # media that are decoded together
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_MARK = re.compile(r"<image (\d)>")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualQuestion:
    """A question and its media, which stand before it, or where it says `<image N>`.

    With `options` the likeliest of them is the reply; without, the model says what it will.
    """

    text: str
    seen: tuple[Seen, ...] = ()
    options: tuple[str, ...] = ()


def weights_digest(folder: Path) -> str:
    """A model folder by its weights: one that was moved is the same model."""
    return short_hash([sha256_file(path) for path in sorted(folder.glob("*.safetensors"))])


class Answerer:
    """Model, rules and media profile of an OUT/model folder.

    With `relevance`, a folder for train.data.frame_relevance, videos of more frames than the cap
    show those that fit the question. `precision` is one of PRECISIONS, "" as the model was saved;
    `batch` questions go together at most.
    """

    def __init__(
        self,
        folder: Path,
        relevance: Path | None = None,
        *,
        precision: str = "",
        batch: int = BATCH,
    ) -> None:
        saved = load_saved(folder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # no dropout: greedy answers are then a function of the weights and the question
        self.model: SlowFastForConditionalGeneration = saved.model.eval().to(device)
        if precision:
            self.model.cast_weights(PRECISIONS[precision])
        self.rules: Rules = saved.rules
        self.relevance = None if relevance is None else Relevance(relevance)
        if self.relevance is not None:
            view = replace(saved.rules.view, selection="query")
            self.rules = replace(saved.rules, view=view)
        elif saved.rules.view.selection == "query":
            raise UserError(
                f"{folder}: the model is shown frames that fit the question; name a folder of "
                "SigLIP with --relevance"
            )
        self.profile: Profile = saved.profile
        self.manifest_id = saved.manifest_id
        self.folder = folder
        self.batch = batch
        self.encoded = 0
        """Clips that passed the tower; questions that share a view of a clip share its pass."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What replies depend on besides the questions: weights, frames shown, precision."""
        return {
            "model": weights_digest(self.folder),
            "manifest_id": self.manifest_id,
            "frames": asdict(self.rules.view),
            "precision": str(self.model.dtype).removeprefix("torch."),
            # other scores choose other frames
            **({"relevance": weights_digest(self.relevance.folder)} if self.relevance else {}),
        }

    def see(self, media: Sequence[Medium]) -> dict[Medium, Seen]:
        """Each medium decoded once; UserError names one that is refused."""
        # many questions share a video: it is decoded once
        distinct = list(dict.fromkeys(media))
        starts = range(0, len(distinct), DECODE_GROUP)
        groups = [distinct[start : start + DECODE_GROUP] for start in starts]
        with ThreadPoolExecutor(DECODE_THREADS) as threads:
            seen = threads.map(partial(see_group, profile=self.profile), groups)
            return dict(zip(distinct, itertools.chain.from_iterable(seen), strict=True))

    def clip_view(self, seen: Seen, question: str) -> ClipView:
        """What the model is shown of a medium for this question: frames, times, size."""
        scores = self.scores(seen, question)
        return view_clip(seen.clip, self.rules.view, self.rules.layout, scores=scores)

    def scores(self, seen: Seen, question: str) -> Sequence[int]:
        """How well each stored frame fits the question; empty where the view does not ask."""
        if self.relevance is None or not wants_scores(seen.clip, self.rules.view):
            return ()
        return self.relevance(seen.jpegs, question)

    def answer(
        self, questions: Sequence[VisualQuestion], pathways: str, max_new_tokens: int = 16
    ) -> list[Said]:
        """Greedy answers or likeliest options, in order; `pathways` says which visual blocks the
        model is given.

        Questions that follow each other and show the same share what stands before their texts.
        """
        # pathways are masked in the layout: the same weights, with fewer tokens
        rules = replace(self.rules, layout=replace(self.rules.layout, pathways=pathways))
        prompts = [self._prompt(i, question, rules) for i, question in enumerate(questions)]
        said: dict[int, Said] = {}
        alone: list[Prompt] = []
        # a choice is scored, a free answer is generated: they do not go together
        for _, group in itertools.groupby(prompts, key=lambda p: (bool(p.replies), p.looks_at)):
            run = list(group)
            shared = shared_tokens(run) if run[0].shown and len(run) > 1 else 0
            if shared:
                first = build_pack([beginning(self._opened(run[0]), shared)], rules.layout)
                prefix = prefix_of(self.model, first)
                for batch in batches(run, self.batch, before=shared):
                    said |= replies_behind(self.model, prefix, batch, rules.codec, max_new_tokens)
            else:
                alone += run
        alone.sort(key=lambda prompt: bool(prompt.replies))
        for _, same in itertools.groupby(alone, key=lambda prompt: bool(prompt.replies)):
            for batch in batches(same, self.batch):
                pack = build_pack([self._opened(prompt) for prompt in batch], rules.layout)
                said |= replies(self.model, pack, batch, rules.codec, max_new_tokens)
        return [said[i] for i in range(len(questions))]

    def _prompt(self, number: int, question: VisualQuestion, rules: Rules) -> Prompt:
        turn, seen = placed(question)
        shown: list[Shown] = []

        def later(clip: int, view: ClipView, used: Sequence[int]) -> Frames:
            shown.append(Shown(seen[clip], view, tuple(used)))
            return without_pixels(view, used)

        sample = render(
            str(number),
            [turn],
            [medium.clip for medium in seen],
            later,
            rules,
            answer=True,
            scores={i: self.scores(medium, question.text) for i, medium in enumerate(seen)},
        )
        end = rules.codec.token_id(IM_END)
        return Prompt(
            number=number,
            sample=sample,
            shown=tuple(one for one in shown if one.used),
            replies=tuple((*rules.codec.encode(text), end) for text in question.options),
        )

    def _opened(self, prompt: Prompt) -> RenderedSample:
        """The prompt's sample with its pixels."""
        self.encoded += len(prompt.shown)
        opened = iter(
            [open_jpegs(one.seen.jpegs, one.view, one.used, one.seen.clip) for one in prompt.shown]
        )
        frames = [next(opened) if len(empty) else empty for empty in prompt.sample.frames]
        return replace(prompt.sample, frames=frames)


def placed(question: VisualQuestion) -> tuple[Turn, tuple[Seen, ...]]:
    """The user's turn, and its media in the order in which the turn shows them.

    A medium whose mark `<image N>` stands in the text is shown there, where it is first named; the
    others before the text, in their order.
    """
    marks: dict[int, int] = {}
    text = ""
    # split keeps the marks: texts and marks alternate
    for part in re.split(r"(<image \d>)", question.text):
        # a mark is shown where it stands first; further ones are read as text
        mark = _MARK.fullmatch(part)
        number = int(mark[1]) - 1 if mark else -1
        if 0 <= number < len(question.seen) and number not in marks:
            marks[number] = len(text)
        else:
            text += part
    # media that no mark names stand before the text
    before = [number for number in range(len(question.seen)) if number not in marks]
    order = [*before, *marks]
    places = tuple((i, marks.get(number, 0)) for i, number in enumerate(order))
    seen = tuple(question.seen[number] for number in order)
    return Turn(role="user", text=text, media=places), seen


def see_group(media: Sequence[Medium], profile: Profile) -> list[Seen]:
    """Some media decoded together; those that are bytes by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, medium in enumerate(media):
            path = medium.path or Path(folder, str(number))
            if medium.data is not None:
                path.write_bytes(medium.data)
            files.append((path, medium.kind, medium.name))
        return see_files(files, profile)
