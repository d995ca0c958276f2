"""A small model with its processor, and things to ask it about."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import SPECIALS, TextCodec, train_tokenizer
from shards.profile import Profile
from tests.support.tiny_model import tiny_model
from train.data.render import Rules
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.processing import SlowFastProcessor, processor_of
from train.model_folder import NEVER_SAID

LAYOUT = LayoutConfig(slow_frames=2, image_token_budget=64)
VIEW = View(fps=1, cap=4, area=16_384, min_area=4096)
WORDS = [
    "which digit is this",
    "user\n",
    "assistant\n",
    "system\n",
    "seven",
    "0.5s 12345",
    "be brief",
]
TOKENIZER = train_tokenizer(WORDS * 4, 300)
CODEC = TextCodec(TOKENIZER)
MARKS = [CODEC.token_id(name) for name in SPECIALS]
END = CODEC.token_id("<|im_end|>")


def chat_processor(folder: Path) -> SlowFastProcessor:
    """A processor whose tokenizer is a file in this folder."""
    path = folder / "tokenizer.json"
    path.write_bytes(TOKENIZER)
    return processor_of(Rules(view=VIEW, layout=LAYOUT, codec=CODEC), Profile(), str(path))


def chat_model(seed: int = 0, **text: object) -> SlowFastForConditionalGeneration:
    """A model of that processor's layout and vocabulary, random."""
    made = tiny_model(seed, layout=LAYOUT, vocab_size=CODEC.vocab_size, **text)
    made.config.visual_token_ids = [CODEC.token_id(name) for name in NEVER_SAID]
    made.generation_config.update(suppress_tokens=MARKS, eos_token_id=None, pad_token_id=END)
    return made


def asked(*parts: dict[str, Any], text: str = "which digit is this") -> list[dict[str, Any]]:
    """A user's message: the parts, then the text."""
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def picture(width: int = 64, height: int = 96) -> Image.Image:
    """Noise of this size."""
    random = np.random.default_rng(width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def frames(count: int = 6, seed: int = 0) -> np.ndarray:
    """Noise as frames uint8 [count, 64, 64, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


def clip_file(folder: Path) -> Path:
    """A film of six seconds."""
    path = folder / "v.mp4"
    source = "testsrc=s=128x96:r=10:d=6"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p"]
    subprocess.run([*command, str(path)], check=True)
    return path


def inputs_of(processor: SlowFastProcessor, *conversations: list[dict[str, Any]]) -> Any:
    """Model inputs of these conversations, each ending where a reply begins."""
    return processor.apply_chat_template(
        list(conversations), tokenize=True, add_generation_prompt=True
    )


@torch.no_grad()
def by_hand(
    model: SlowFastForConditionalGeneration,
    inputs: Any,
    steps: int,
    allowed: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits,
) -> list[int]:
    """The greedy answer of one conversation, everything computed anew at every step."""
    given, said = dict(inputs), []
    for _ in range(steps):
        logits = model(**given, use_cache=False).logits[0, -1].float()
        logits[MARKS] = -torch.inf
        said.append(int(allowed(logits).argmax()))
        given["input_ids"] = torch.cat([given["input_ids"], torch.tensor([[said[-1]]])], 1)
        given["attention_mask"] = torch.ones_like(given["input_ids"])
    return said
