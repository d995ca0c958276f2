"""A saved model that is shown media as training data is decoded, and answers questions."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from mixtures.tokens.frame_view import ClipView, view_clip
from mixtures.tokens.text import IM_END
from shards.ids import sha256_file, short_hash
from shards.profile import Profile
from shards.sample import Turn
from train.data.collate import RenderedSample, build_pack
from train.data.frame_relevance import Relevance, wants_scores
from train.data.jpeg_patches import ClipCache, Frames, open_jpegs
from train.data.render import Rules, render
from train.data.user_media import Seen, see_files
from train.evaluation.tasks import Medium
from train.model.modeling import SlowFastForConditionalGeneration
from train.model_folder import load_saved

BATCH = 64  # questions at most
BATCH_TOKENS = 32_768  # of one pass, and so for patches: an evaluation needs what a pack needs
BATCH_PATCHES = 65_536
CACHE_BYTES = 256 << 20
DECODE_THREADS = 2
DECODE_GROUP = 16  # media that are decoded together
_MARK = re.compile(r"<image (\d)>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question and its media, which stand before it, or where it says `<image N>`."""

    text: str
    seen: tuple[Seen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A reply; `cut` where it was as long as it may be, and did not end by itself."""

    text: str
    cut: bool


class Answerer:
    """Model, rules and media profile of an OUT/model folder.

    With `relevance`, a folder for train.data.frame_relevance, videos of more frames than the cap
    show those that fit the question.
    """

    def __init__(self, folder: Path, relevance: Path | None = None) -> None:
        saved = load_saved(folder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # no dropout: greedy answers are then a function of the weights and the question
        self.model: SlowFastForConditionalGeneration = saved.model.eval().to(device)
        self.rules: Rules = saved.rules
        self.relevance = None if relevance is None else Relevance(relevance)
        if self.relevance is not None:
            view = replace(saved.rules.view, selection="query")
            self.rules = replace(saved.rules, view=view)
        self.profile: Profile = saved.profile
        self.manifest_id = saved.manifest_id
        self.cache = ClipCache(CACHE_BYTES)
        self.folder = folder

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What replies depend on besides the questions: weights, frames shown, precision."""
        weights = sorted(self.folder.glob("*.safetensors"))
        return {
            # by content: a folder that was moved is the same model
            "model": short_hash([sha256_file(path) for path in weights]),
            "manifest_id": self.manifest_id,
            "frames": asdict(self.rules.view),
            "precision": str(self.model.dtype).removeprefix("torch."),
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
        self, questions: Sequence[Asked], pathways: str, max_new_tokens: int = 16
    ) -> list[Said]:
        """Greedy answers, in order; `pathways` says which visual blocks the model is given."""
        # pathways are masked in the layout: the same weights, with fewer tokens
        rules = replace(self.rules, layout=replace(self.rules.layout, pathways=pathways))
        samples = (self._rendered(each_question, rules) for each_question in questions)
        answers: list[Said] = []
        for batch in batches(samples):
            answers += self._answer_batch(batch, rules, max_new_tokens)
        return answers

    def _rendered(self, question: Asked, rules: Rules) -> RenderedSample:
        turn, seen = placed(question)
        return render(
            "",
            [turn],
            [medium.clip for medium in seen],
            partial(self._frames, seen),
            rules,
            answer=True,
            scores={i: self.scores(medium, question.text) for i, medium in enumerate(seen)},
        )

    def _answer_batch(
        self, samples: Sequence[RenderedSample], rules: Rules, max_new_tokens: int
    ) -> list[Said]:
        # the turn's end mark ends a reply; rows that ended are padded with it
        end = rules.codec.token_id(IM_END)
        ids = self.model.answer(
            build_pack(samples, rules.layout),
            max_new_tokens=max_new_tokens,
            eos_token_id=end,
            pad_token_id=end,
            do_sample=False,
        )
        return [
            Said(text=rules.codec.decode(row).strip(), cut=len(row) >= max_new_tokens)
            for row in ids
        ]

    def _frames(
        self, seen: Sequence[Seen], number: int, clip_view: ClipView, used: Sequence[int]
    ) -> Frames:
        clip, jpegs = seen[number].clip, seen[number].jpegs
        key = (
            clip.clip_id,
            clip_view.grid,
            clip_view.picture,
            tuple(clip_view.frames[i] for i in used),
        )
        frames = self.cache.get(key)
        if frames is None:
            frames = open_jpegs(jpegs, clip_view, used, clip)
            self.cache.put(key, frames)
        return frames


def placed(question: Asked) -> tuple[Turn, tuple[Seen, ...]]:
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


def batches(samples: Iterator[RenderedSample]) -> Iterator[list[RenderedSample]]:
    """Samples in order, as many together as fit the bounds on questions, tokens and patches.

    Tokens are those of left-padded rows: the longest times the number of rows.
    """
    batch: list[RenderedSample] = []
    longest = patches = 0
    for sample in samples:
        length = len(sample.text.ids)
        # patches of all frames of all clips: what the tower will run over
        more = sum(clip.shape[0] * clip.shape[1] * clip.shape[2] for clip in sample.frames)
        # padding counts: every row is as long as the longest
        full = len(batch) == BATCH or patches + more > BATCH_PATCHES
        if batch and (full or max(longest, length) * (len(batch) + 1) > BATCH_TOKENS):
            yield batch
            batch = []
            longest = 0
            patches = 0
        batch.append(sample)
        longest = max(longest, length)
        patches = patches + more
    if batch:
        yield batch


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
