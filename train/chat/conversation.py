"""A conversation with a saved model: turns, media where they are shown, replies as they come.

show ─► ask ─► turns and clips, rendered as training data is ─► tokens, told one by one ─► Reply
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.generation.streamers import BaseStreamer

from mixtures.tokens.frame_view import ClipView
from mixtures.tokens.text import IM_END, TextCodec
from mixtures.tokens.token_plan import time_text
from shards.errors import UserError
from shards.sample import Turn
from train.data.collate import build_pack
from train.data.jpeg_patches import Frames, Pixels, decoded, open_jpegs
from train.data.render import render
from train.data.user_media import KINDS, MediaRefusal, Seen, see_each
from train.evaluation.answerer import Answerer

REPLY_TOKENS = 256
OnPiece = Callable[[str], None]
"""Takes pieces of a reply as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMedium:
    """A medium as the model saw it: presentation times (as text) and size of its frames."""

    name: str
    kind: str
    times: tuple[str, ...]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What was said; `cut` where it is as long as it may be. `looked`: the media of this turn."""

    answer: str
    cut: bool
    looked: tuple[ShownMedium, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A medium of the conversation, and what of it the model is shown once it was asked about."""

    name: str
    seen: Seen


class Conversation:
    """Turns with one model; each reply is greedy, at most `tokens` long.

    A question that cannot be asked is forgotten with the media that came with it.
    """

    def __init__(self, answerer: Answerer, tokens: int = REPLY_TOKENS) -> None:
        self.answerer = answerer
        self.tokens = tokens
        self.turns: list[Turn] = []
        self.media: list[Medium] = []
        self.views: dict[int, ClipView] = {}
        self.scores: dict[int, Sequence[int]] = {}

    def show(self, kind: str, path: Path) -> None:
        """Show an "image" or a "video" with the next question; UserError says why it cannot be."""
        # opened at once: a file that cannot be shown is told when it is named, not when it is asked
        # about
        self.media.append(Medium(name=path.name, seen=opened(kind, path, self.answerer)))

    def ask(self, question: str, on_piece: OnPiece = lambda _: None) -> Reply:
        """The reply to a question about all that was shown and said so far."""
        before = {clip for turn in self.turns for clip, _ in turn.media}
        new = [number for number in range(len(self.media)) if number not in before]
        for number in new:
            # frames are chosen by the question that comes with them, and stay so in later turns
            self.scores[number] = self.answerer.scores(self.media[number].seen, question)
        # new media stand before the question
        user_turn = Turn(role="user", text=question, media=tuple((number, 0) for number in new))
        try:
            text, cut = self._said([*self.turns, user_turn], on_piece)
        except UserError:
            # what cannot be shown would make every later question fail alike
            del self.media[len(before) :]
            self.views = {number: self.views[number] for number in self.views if number in before}
            raise
        # only now: a reply that Ctrl-C ended leaves no half turn
        self.turns += [user_turn, Turn(role="assistant", text=text)]
        return Reply(answer=text, cut=cut, looked=tuple(map(self._looked, new)))

    def frames(self) -> Iterator[tuple[Pixels, str]]:
        """Every frame that the model was shown, with its time and its medium."""
        for number, view in self.views.items():
            medium = self.media[number]
            used = range(len(view.frames))
            pixels = decoded(medium.seen.jpegs, view, used, medium.seen.clip)
            for frame, second in zip(pixels, view.seconds, strict=True):
                yield frame.copy(), f"{time_text(second)} {medium.name}"

    def _said(self, turns: Sequence[Turn], on_piece: OnPiece) -> tuple[str, bool]:
        rules = self.answerer.rules

        def frames_of(number: int, view: ClipView, used: Sequence[int]) -> Frames:
            # remembered as it is rendered: what a person is told was looked at is what the model
            # got
            self.views[number] = view
            seen = self.media[number].seen
            return open_jpegs(seen.jpegs, view, used, seen.clip)

        clips = [medium.seen.clip for medium in self.media]
        # the whole conversation anew at each turn: nothing is kept between turns but turns and
        # media
        sample = render("", turns, clips, frames_of, rules, answer=True, scores=self.scores)
        end = rules.codec.token_id(IM_END)
        # greedy: the same question gets the same reply
        (ids,) = self.answerer.model.answer(
            build_pack([sample], rules.layout),
            max_new_tokens=self.tokens,
            eos_token_id=end,
            do_sample=False,
            streamer=Pieces(rules.codec, end, on_piece),
        )
        return rules.codec.decode(ids).strip(), len(ids) >= self.tokens

    def _looked(self, number: int) -> ShownMedium:
        view, medium = self.views[number], self.media[number]
        times = tuple(time_text(second) for second in view.seconds)
        size = (view.width, view.height)
        return ShownMedium(name=medium.name, kind=medium.seen.clip.kind, times=times, size=size)


class Pieces(BaseStreamer):
    """Tells the text of generated tokens as soon as it is whole: a character may take several."""

    def __init__(self, codec: TextCodec, end: int, on_piece: OnPiece) -> None:
        self.codec, self.end_token, self.on_piece = codec, end, on_piece
        self.ids: list[int] | None = None
        self.said = ""

    def put(self, value: Any) -> None:
        """The prompt first, then token by token."""
        # `generate` hands the prompt to a streamer first
        if self.ids is None:
            self.ids = []
            return
        self.ids += [id_ for id_ in value.flatten().tolist() if id_ != self.end_token]
        text = self.codec.decode(self.ids)
        # the replacement character: bytes of a character are still to come
        if not text.endswith("\ufffd"):
            self._tell(text)

    def end(self) -> None:
        """What is left, whole or not."""
        self._tell(self.codec.decode(self.ids or []))

    def _tell(self, text: str) -> None:
        # decoded as a whole each time: a token's text depends on those before it
        self.on_piece(text[len(self.said) :])
        self.said = text


def opened(kind: str, path: Path, answerer: Answerer) -> Seen:
    """The medium in a file; UserError where there is none, or one of the other kind."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give --{kind} FILE")
    (medium,) = see_each([(path.absolute(), kind, None, path.name)], answerer.profile)
    if isinstance(medium, Seen):
        return medium
    # tried as the other kind: perhaps only the option is wrong
    (other_kind,) = (one for one in KINDS if one != kind)
    (retried,) = see_each([(path.absolute(), other_kind, None, path.name)], answerer.profile)
    article = {"image": "an image", "video": "a video"}
    if not isinstance(retried, MediaRefusal):
        raise UserError(
            f"{path}: {article[other_kind]}, not {article[kind]}; give it as --{other_kind}"
        )
    raise UserError(f"{path}: {medium.code}: {medium.detail}; give another file")
