"""How well each frame of a video fits a question: SigLIP's text against SigLIP's frames.

The scores are for views that select frames by "query" (mixtures.tokens.frame_selection): of a long
video the model is then shown the frames that the question is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, AutoProcessor

from mixtures.tokens.frame_selection import at_rate
from mixtures.tokens.layout_types import View
from shards.errors import UserError, opening
from shards.sample import Clip

Pixels = NDArray[np.uint8]
KINDS = ("siglip", "siglip2")
STEPS = 1_000_000
"""Scores are integers: cosines in millionths."""
_FRAMES = 32  # encoded at once
_CLIPS = 4  # whose frames are remembered: questions about one video stand together


class Relevance:
    """A folder of SigLIP or SigLIP 2 with its processor, as transformers saves them."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: not a model folder of transformers (no config.json)")
        with opening(str(folder)):
            kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
        if kind not in KINDS:
            raise UserError(f"{folder}: a model of type {kind!r}; use one of {', '.join(KINDS)}")
        self.folder = folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # nothing that the folder names is run: no pickles, no classes, no kernels of its own
        only: dict[str, Any] = {"use_safetensors": True, "attn_implementation": "sdpa"}
        with opening(str(folder)):
            model: Any = AutoModel.from_pretrained(folder, trust_remote_code=False, **only)
            self.processor: Any = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        # no gradients, no dropout: scores decide which frames are shown
        self.model = model.eval().to(self.device)
        self._frames = lru_cache(_CLIPS)(self._encode)
        self._last: tuple[Sequence[Pixels], Tensor] | None = None

    def __call__(self, jpegs: Sequence[bytes], question: str) -> list[int]:
        """One score per frame, higher where it fits better."""
        return self._scores(self._frames(tuple(jpegs)), question)

    def of_arrays(self, frames: Sequence[Pixels], texts: Sequence[str]) -> list[list[int]]:
        """The same of RGB frames, for each question of `texts`; frames that come again, as the same
        object, are encoded once."""
        if self._last is None or self._last[0] is not frames:
            self._last = frames, self._features(frames)
        return [self._scores(self._last[1], question) for question in texts]

    @torch.no_grad()
    def _scores(self, features: Tensor, question: str) -> list[int]:
        inputs = self.processor.tokenizer(
            # SigLIP was trained on texts padded to full length, in lower case
            question.lower(),
            padding="max_length",
            max_length=self.model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        text = self.model.get_text_features(inputs["input_ids"].to(self.device)).pooler_output
        # cosine similarity: both sides of unit length
        cosines = features @ normalize(text.float(), dim=-1)[0].cpu()
        # rounded integers, so that ties fall the same way on every device
        return (cosines * STEPS).round().long().tolist()

    def _encode(self, jpegs: tuple[bytes, ...]) -> Tensor:
        return self._features(map(simplejpeg.decode_jpeg, jpegs))

    @torch.no_grad()
    def _features(self, frames: Iterable[Pixels]) -> Tensor:
        """Features of unit length [N, D]."""
        made = []
        left = iter(frames)
        # some at a time: frames of a long video are not all decoded at once
        while some := list(islice(left, _FRAMES)):
            inputs = self.processor.image_processor(some, return_tensors="pt").to(self.device)
            made.append(self.model.get_image_features(**inputs).pooler_output.float().cpu())
        return normalize(torch.cat(made), dim=-1)


def wants_scores(clip: Clip, view: View) -> bool:
    """Whether the view selects among this clip's frames by how well they fit the question."""
    selects = clip.kind == "video" and view.selection == "query"
    return selects and len(at_rate(clip, view.fps)) > view.cap
