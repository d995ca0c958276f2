"""A saved model that is shown media as training data is decoded, and answers questions."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from mixtures.tokens.frame_view import ClipView, view_clip
from mixtures.tokens.text import IM_END
from shards.profile import Profile
from train.data.collate import build_pack
from train.data.frame_relevance import Relevance, wants_scores
from train.data.jpeg_patches import ClipCache, Frames, open_jpegs
from train.data.render import Rules, render
from train.data.user_media import Seen, see_files
from train.evaluation.tasks import Medium, question_turn
from train.model.modeling import SlowFastForConditionalGeneration
from train.model_folder import load_saved

BATCH = 64
CACHE_BYTES = 256 << 20
DECODE_THREADS = 2
DECODE_GROUP = 16  # media that are decoded together


class Answerer:
    """Model, rules and media profile of an OUT/model folder.

    With `relevance`, a folder for train.data.frame_relevance, videos of more frames than the cap
    show those that fit the question.
    """

    def __init__(self, folder: Path, relevance: Path | None = None) -> None:
        saved = load_saved(folder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: SlowFastForConditionalGeneration = saved.model.eval().to(device)
        self.rules: Rules = saved.rules
        self.relevance = None if relevance is None else Relevance(relevance)
        if self.relevance is not None:
            view = replace(saved.rules.view, selection="query")
            self.rules = replace(saved.rules, view=view)
        self.profile: Profile = saved.profile
        self.manifest_id = saved.manifest_id
        self.cache = ClipCache(CACHE_BYTES)

    def see(self, media: Sequence[Medium]) -> dict[Medium, Seen]:
        """Each medium decoded once; UserError names one that is refused."""
        distinct = list(dict.fromkeys(media))
        starts = range(0, len(distinct), DECODE_GROUP)
        groups = [distinct[start : start + DECODE_GROUP] for start in starts]
        with ThreadPoolExecutor(DECODE_THREADS) as threads:
            seen = threads.map(partial(see_group, profile=self.profile), groups)
            return dict(zip(distinct, itertools.chain.from_iterable(seen), strict=True))

    def look(self, seen: Seen, question: str) -> ClipView:
        """What the model is shown of a medium for this question: frames, times, size."""
        scores = self.scores(seen, question)
        return view_clip(seen.clip, self.rules.view, self.rules.layout, scores=scores)

    def scores(self, seen: Seen, question: str) -> Sequence[int]:
        """How well each stored frame fits the question; empty where the view does not ask."""
        if self.relevance is None or not wants_scores(seen.clip, self.rules.view):
            return ()
        return self.relevance(seen.jpegs, question)

    def answer(
        self, asked: Sequence[tuple[Seen | None, str]], pathways: str, max_new_tokens: int = 16
    ) -> list[str]:
        """Greedy answers, in order; `pathways` says which visual blocks the model is given."""
        rules = replace(self.rules, layout=replace(self.rules.layout, pathways=pathways))
        answers: list[str] = []
        for start in range(0, len(asked), BATCH):
            answers += self._answer_batch(asked[start : start + BATCH], rules, max_new_tokens)
        return answers

    def _answer_batch(
        self, asked: Sequence[tuple[Seen | None, str]], rules: Rules, max_new_tokens: int
    ) -> list[str]:
        samples = [
            render(
                str(i),
                [question_turn(text, has_medium=seen is not None)],
                [] if seen is None else [seen.clip],
                partial(self._frames, seen),
                rules,
                answer=True,
                scores={} if seen is None else {0: self.scores(seen, text)},
            )
            for i, (seen, text) in enumerate(asked)
        ]
        end = rules.codec.token_id(IM_END)
        ids = self.model.answer(
            build_pack(samples, rules.layout),
            max_new_tokens=max_new_tokens,
            eos_token_id=end,
            pad_token_id=end,
            do_sample=False,
        )
        return [rules.codec.decode(row).strip() for row in ids]

    def _frames(self, seen: Seen | None, _: int, look: ClipView, used: Sequence[int]) -> Frames:
        assert seen is not None  # a question without a medium has no clip to open
        key = (seen.clip.clip_id, look.grid, look.picture, tuple(look.frames[i] for i in used))
        frames = self.cache.get(key)
        if frames is None:
            frames = open_jpegs(seen.jpegs, look, used, seen.clip)
            self.cache.put(key, frames)
        return frames


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
