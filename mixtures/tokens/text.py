"""The chat template: a conversation becomes token ids and a label mask, here and nowhere else.

The template is ChatML with the vision tokens of Qwen2-VL.
Template pieces carry the special tokens, looked up by string. Every content string and timestamp is
encoded alone by a tokenizer without added tokens, so no text can spell a control token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from mixtures.tokens.layout_types import END, IMAGE, START, TIME, TokenPlan
from mixtures.versions import TEXT_VERSION
from shards.errors import UserError
from shards.ids import sha256_hex, short_hash
from shards.sample import ROLES, Turn

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
NEEDED = (IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
"""Special strings that a tokenizer must know."""
SPECIALS = ("<|endoftext|>", "<|vision_pad|>", *NEEDED)
"""Qwen2.5's special strings that our own tokenizers carry."""
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NO_RUNS = np.empty((0, 3), np.int64)
_PAD = re.compile("|".join(map(re.escape, (IMAGE_PAD, VIDEO_PAD))))
_CONTROLS = re.compile(
    rf"({re.escape(IM_START)}(?:{'|'.join(ROLES)})\n|{re.escape(IM_END)}\n"
    rf"|(?:{re.escape(VISION_START)})?(?:{_PAD.pattern})(?:{re.escape(VISION_END)})?"
    rf"|{'|'.join(map(re.escape, SPECIALS))})"
)
"""Where a prompt is cut: heads and tails of turns, pads with what stands around them, the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Token ids int32[T], supervised bool[T] (what is learned), and where each visual run starts.

    `visual` int64 [S, 3]: position of the run's first token, clip index, run index.
    """

    ids: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    visual: NDArray[np.int64]


class TextCodec:
    """A tokenizer file's bytes under a template."""

    def __init__(self, tokenizer_json: bytes, template: str = "chatml", where: str = "") -> None:
        """`where` names the file in the UserError raised for bytes that are no such tokenizer."""
        if template != "chatml":
            raise UserError(f"{where}: template {template!r} is unknown; use chatml")
        self.tokenizer_sha256 = sha256_hex(tokenizer_json)
        self.template = template
        self.profile_id = short_hash([TEXT_VERSION, template, self.tokenizer_sha256])
        try:
            # content is read by a second one without added tokens: there `<|im_end|>` is plain text
            value = json.loads(tokenizer_json) | {"truncation": None, "padding": None}
            self._full = Tokenizer.from_str(json.dumps(value))
            self._plain = Tokenizer.from_str(json.dumps(value | {"added_tokens": []}))
        except Exception as error:  # `tokenizers` raises bare Exception
            raise UserError(f"{where}: not a tokenizer.json ({error}); name another") from error
        missing = [name for name in NEEDED if self._full.token_to_id(name) is None]
        if missing:
            raise UserError(
                f"{where}: the tokenizer lacks {missing}; use one of the Qwen2.5 family"
            )

    @property
    def vocab_size(self) -> int:
        """Tokens of the tokenizer, special ones included."""
        size: int = self._full.get_vocab_size()
        return size

    def vocabulary(self) -> dict[str, int]:
        """Every token of the tokenizer and its id, special ones included."""
        ids: dict[str, int] = self._full.get_vocab(with_added_tokens=True)
        return ids

    def token_id(self, special: str) -> int:
        """The id of a special string; UserError if the tokenizer has none."""
        found: int | None = self._full.token_to_id(special)
        if found is None:
            raise UserError(f"the tokenizer has no {special}")
        return found

    def encode(self, text: str) -> list[int]:
        """Ids of content: whatever it spells, no control token comes out."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        text: str = self._full.decode(list(ids), skip_special_tokens=True)
        return text

    def count(self, text: str) -> int:
        """Tokens of one content string."""
        return len(self.encode(text))

    def count_turns(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens per turn, template pieces included, visual runs excluded."""
        return [
            len(self._heads[turn.role])
            + sum(self.count(piece) for piece, _ in pieces_of(turn))
            + len(self._tail)
            for turn in turns
        ]

    def count_supervised(self, turns: Sequence[Turn]) -> int:
        """Tokens that are learned: those of answers, and the one that ends each."""
        learned = [turn for turn in turns if turn.loss == 1]
        return sum(1 + sum(self.count(text) for text, _ in pieces_of(turn)) for turn in learned)

    def render(
        self,
        turns: Sequence[Turn],
        layouts: Sequence[TokenPlan],
        *,
        answer: bool = False,
        unfinished: bool = False,
    ) -> Rendered:
        """The ids of a conversation over clips with these layouts; `answer` opens a reply.

        A clip is shown where it is first mentioned, and there alone. `unfinished` leaves the last
        turn open, to be gone on with.
        """
        # (ids, whether they are learned), joined once at the end
        pieces: list[tuple[Sequence[int], bool]] = [([], False)]
        visual = [_NO_RUNS]
        shown: set[int] = set()
        at = 0

        def add(more: Sequence[int], learn: bool = False) -> None:
            nonlocal at
            pieces.append((more, learn))
            at += len(more)

        for turn in turns:
            # only answers are learned, and the token that ends them
            learn = turn.loss == 1
            add(self._heads[turn.role])
            for text, clip in pieces_of(turn):
                add(self.encode(text), learn)
                # a clip is encoded once, where it is mentioned first
                if clip is None or clip in shown:
                    continue
                shown.add(clip)
                ids, runs = _block(self, layouts[clip])
                # the clip's runs, counted from where its block begins here
                visual.append(np.add(runs, (at, clip, 0)))
                add(ids)
            # the end of an answer is learned, the line break after it is not
            if not (unfinished and turn is turns[-1]):
                add(self._tail[:1], learn)
                add(self._tail[1:])
        if answer:
            add(self._heads["assistant"])
        return Rendered(
            ids=np.concatenate([np.asarray(ids, np.int32) for ids, _ in pieces]),
            supervised=np.repeat([learn for _, learn in pieces], [len(ids) for ids, _ in pieces]),
            visual=np.concatenate(visual),
        )

    def render_prompt(self, text: str, layouts: Sequence[TokenPlan]) -> Rendered:
        """The ids of a text that is in the template already: what spells a control token is one.

        The i-th pad, alone or between a start and an end, stands for the i-th clip. Nothing is
        supervised. What a user wrote goes through `render`. ValueError where pads and clips differ
        in number.
        """
        ids: list[int] = []
        visual, clips = [_NO_RUNS], 0
        # the i-th pad becomes the i-th clip's tokens, whatever special tokens stood around it
        for piece in _CONTROLS.split(text):
            if _PAD.search(piece) and clips < len(layouts):
                block, runs = _block(self, layouts[clips])
                visual.append(np.add(runs, (len(ids), clips, 0)))
                ids += block.tolist()
            else:
                ids += self._control(piece)
            clips += bool(_PAD.search(piece))
        if clips != len(layouts):
            raise ValueError(f"{clips} pads in the text, {len(layouts)} images and videos with it")
        return Rendered(
            ids=np.array(ids, np.int32),
            supervised=np.zeros(len(ids), np.bool_),
            visual=np.concatenate(visual),
        )

    def _control(self, piece: str) -> list[int]:
        """The ids of a piece of a prompt: a template's head or tail, a special string, or text."""
        # heads and tails as `render` spells them, so that a prompt has the very ids of its turns
        role = piece.removeprefix(IM_START).removesuffix("\n")
        if piece == f"{IM_START}{role}\n" and role in ROLES:
            return self._heads[role]
        if piece == f"{IM_END}\n":
            return self._tail
        special: int | None = self._full.token_to_id(piece)
        return [special] if piece in SPECIALS and special is not None else self.encode(piece)

    @cached_property
    def _heads(self) -> dict[str, list[int]]:
        return {role: [self.token_id(IM_START), *self.encode(f"{role}\n")] for role in ROLES}

    @cached_property
    def _tail(self) -> list[int]:
        return [self.token_id(IM_END), *self.encode("\n")]


@lru_cache(maxsize=256)
def _block(codec: TextCodec, layout: TokenPlan) -> tuple[Any, NDArray[np.int64]]:
    """The ids of a clip's runs, and for each run [S, 3]: where it starts among them, 0, it."""
    is_image = any(run.kind == IMAGE for run in layout)
    # visual tokens are place-holders in the ids; the projector's vectors take their place
    pad = codec.token_id(IMAGE_PAD if is_image else VIDEO_PAD)
    special = {START: codec.token_id(VISION_START), END: codec.token_id(VISION_END)}
    runs = [
        codec.encode(run.text) if run.kind == TIME else [special.get(run.kind, pad)] * run.n
        for run in layout
    ]
    # where each run of the block begins
    starts = np.cumsum([0, *map(len, runs)])[:-1]
    numbered = np.stack([starts, np.zeros_like(starts), np.arange(len(runs))], 1)
    return np.array([one for ids in runs for one in ids], np.int32), numbered


def pads_of(text: str) -> list[str]:
    """The pads that a prompt spells, in order: `IMAGE_PAD` or `VIDEO_PAD`."""
    return _PAD.findall(text)


def pieces_of(turn: Turn) -> list[tuple[str, int | None]]:
    """The text of a turn cut at its media: (text before, clip index), the last with no clip."""
    pieces: list[tuple[str, int | None]] = []
    at = 0
    for clip, offset in turn.media:
        pieces.append((turn.text[at:offset], clip))
        at = offset
    return [*pieces, (turn.text[at:], None)]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> bytes:
    """A byte-level BPE with Qwen2.5's special strings; the same texts give the same bytes."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    # Qwen2.5's splitting into words, then bytes as BPE's alphabet (Radford et al. 2019)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    text: str = tokenizer.to_str()
    return text.encode()
