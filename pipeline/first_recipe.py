"""A first recipe for a folder of one's own: commented YAML that builds, and its tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mixtures.recipe import fields
from mixtures.recipe.strict_yaml import parse_yaml
from mixtures.recipe.types import Recipe
from mixtures.tokens.text import train_tokenizer
from pipeline.survey import Survey, Surveyed
from shards.errors import UserError
from shards.store import Store

QWEN = "hf://Qwen/Qwen2.5-7B-Instruct@a09a35458c702b33eeacc393d103063234e8bc28/tokenizer.json"
"""The tokenizer of the Qwen2.5 family, the same at every size."""
QWEN_FILE = Path("tokenizers/qwen2.5/tokenizer.json")
"""Where a copy of it is looked for first (docs/training.md)."""
VOCABULARY = 2048
"""Tokens of a tokenizer that is trained on the folder's own texts."""
HELD_OUT = re.compile(r"(^|[_.-])(test|val|valid|validation|eval|dev|held_?out)([_.-]|$)", re.I)
"""Names by which people set evaluation data apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How samples are shown to a kind of model: lines of a recipe, and the window of its packs."""

    about: str
    lines: str
    window: int


PRESETS = {
    "scratch": Preset(
        about="a small model from nothing, on any machine",
        lines="""\
# What the pool keeps of every clip: frames a second, frames at most. Another one, another pool.
profile: {fps: 2, frame_cap: 512}
# What is shown of it: frames a second, frames at most, pixels of a frame at most.
frames: {fps: 2, cap: 16, area: 16384, min_area: 4096}
# Tokens: of a video 4 slow frames with detail and all frames with little; of an image 64.
layout: {slow_frames: 4, slow_stride: 2, fast_mode: stride, fast_stride: 4, image_token_budget: 64}
pack_tokens: 1024  # of a packed sequence; a longer sample is refused
pack_patches: 16384
""",
        window=64,
    ),
    "qwen2.5": Preset(
        about="Qwen2.5 with a published vision tower, on GPUs (docs/training.md)",
        lines="""\
# What the pool keeps of every clip: frames a second, frames at most. Another one, another pool.
profile: {fps: 2, frame_cap: 512}
# What is shown of it: frames a second, frames at most, pixels of a frame at most.
frames: {fps: 1, cap: 128, area: 147456}
# Tokens: as SlowFast-LLaVA-1.5 has them (docs/model.md).
layout: {slow_frames: 32, fast_stride: 4, image_token_budget: 12288, timestamps: none}
pack_tokens: 32768  # of a packed sequence; a longer sample is refused
pack_patches: 262144
""",
        window=1024,
    ),
}
"""By what a recipe is for."""


def write_recipe(survey: Survey, purpose: str, path: Path) -> str:
    """Write the recipe, and the tokenizer if it is a new one; returns the tokenizer's address.

    UserError where the recipe is there already.
    """
    if path.exists():
        raise UserError(f"{path}: is there already; remove it, or give another --out")
    store = Store(path.parent)
    store.check_writable()
    tokenizer = _tokenizer(survey, purpose, path.parent)
    text = recipe_text(survey, purpose, tokenizer)
    # read as a build reads it before it is there: a first recipe may not be wrong
    fields.parse(Recipe, parse_yaml(text.encode(), str(path)), str(path))
    store.put(path.name, text.encode())
    return tokenizer


def _tokenizer(survey: Survey, purpose: str, beside: Path) -> str:
    """The file or address of a tokenizer that fits; a small one is trained where there is none."""
    if purpose == "qwen2.5":
        return str(QWEN_FILE) if QWEN_FILE.is_file() else QWEN
    file = beside / "tokenizer.json"
    if not file.is_file():
        texts = [text for source in survey.sources for text in source.texts]
        Store(beside).put(file.name, train_tokenizer(texts, VOCABULARY))
    return str(file)


def recipe_text(survey: Survey, purpose: str, tokenizer: str) -> str:
    """The recipe as YAML, with what a person may want to change beside it."""
    preset = PRESETS[purpose]
    kept, held_out = apart(survey)
    samples = sum(source.usable for source in kept)
    # small data: still several windows, so that epochs and shares are whole
    window = min(preset.window, max(1, samples // 4))
    lines = [
        f"# For {preset.about}. Every key: docs/recipe_reference.md.",
        "# Paths start from the folder in which commands are run.",
        f"name: {_scalar(_word(survey.folder.resolve().name))}",
        "seed: 1  # of the order",
        preset.lines.rstrip(),
        f"pack_window: {window}  # positions among which packs are made",
        f"text: {{tokenizer: {_scalar(tokenizer)}}}",
        "sources:",
        *(line for source in kept for line in _source(survey, source, _ratio(source, kept))),
    ]
    if held_out:
        lines += [
            "# Named like evaluation data: training samples that show the same media are refused.",
            "held_out:",
            *(line for source in held_out for line in _source(survey, source, "")),
        ]
    return "\n".join([*lines, *_more()]) + "\n"


def apart(survey: Survey) -> tuple[list[Surveyed], list[Surveyed]]:
    """(what is trained on, what is named like evaluation data and has media)."""
    held_out = [s for s in survey.sources if HELD_OUT.search(s.name) and s.images + s.videos]
    kept = [source for source in survey.sources if source not in held_out]
    return (kept, held_out) if kept else (held_out, [])


def _ratio(of: Surveyed, surveyed: list[Surveyed]) -> str:
    """A weight for each record, where all of them are known; else every sample once."""
    if all(one.whole for one in surveyed):
        return f"weight: {max(of.usable, 1)}  # its records, so that all are seen alike"
    return "repeat: 1  # every sample once"


def _source(survey: Survey, surveyed: Surveyed, ratio: str) -> Iterator[str]:
    yield f"  - name: {_scalar(surveyed.name)}"
    yield f"    dataset: {_word(survey.folder.resolve().name)}/{surveyed.name}"
    yield f"    format: {surveyed.format}"
    files = [_scalar(str(survey.folder / name)) for name in surveyed.annotations]
    yield f"    annotations: {files[0] if len(files) == 1 else '[' + ', '.join(files) + ']'}"
    if surveyed.columns:
        meant = (f"{meaning}: {_listed(names)}" for meaning, names in surveyed.columns)
        yield f"    columns: {{{', '.join(meant)}}}"
    if surveyed.media:
        yield f"    media: {_scalar(surveyed.media)}"
    elif surveyed.missing and survey.archives:
        places = ", ".join(_scalar(str(survey.folder / name)) for name in survey.archives)
        yield f"    archives: [{places}]  # looked through when it is built"
    yield "    licence: unknown  # the one under which you may use it"
    if ratio:
        yield f"    {ratio}"


def _more() -> list[str]:
    return [
        "# Also, for example:",
        "# near_text: 0.9            # of nearly equal conversations over the same media one stays",
        "# allow_licences: [CC-BY-4.0]",
        "# leaks: {index: INDEX}     # keep evaluation data out (docs/leaks.md)",
    ]


def _listed(texts: tuple[str, ...]) -> str:
    spelled = [_scalar(name) for name in texts]
    return spelled[0] if len(spelled) == 1 else f"[{', '.join(spelled)}]"


def _scalar(text: str) -> str:
    """Text as YAML: bare where it can be nothing else, else quoted."""
    plain = re.fullmatch(r"[A-Za-z./][\w./@:-]*(?<!:)", text, re.ASCII)
    words = ("true", "false", "null", "yes", "no", "on", "off", "y", "n", ".inf", ".nan")
    # JSON strings are YAML's double-quoted ones
    return text if plain and text.lower() not in words else json.dumps(text)


def _word(text: str) -> str:
    """Letters, digits, `_`, `-` and `.`, for a name of a recipe or a dataset."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")[:60] or "own"
