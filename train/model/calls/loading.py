"""`from_pretrained` as callers of transformers know it: types, quantisation, checks."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch

from shards.errors import DamagedData, UserError
from shards.ids import sha256_file

logger = logging.getLogger(__name__)
OF_CONFIGS = {"vision_config": "vision_tower", "text_config": "language_model"}
"""Keys of transformers' `dtype={...}`, and the part that each means; "" is all the rest."""
WHOLE = ("vision_tower", "projector", "memory", "language_model.lm_head")
"""What 4 and 8 bits leave out: small beside the decoder, or read by every token."""
SKIPS = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")
"""How configs of quantisation name the modules that they leave out."""
_LOADED_AS: ContextVar[Mapping[str, torch.dtype]] = ContextVar("loaded_as")


@contextmanager
def typed(dtype: Any) -> Iterator[Any]:
    """What transformers is told of `dtype`, while parts are loaded in types of their own.

    transformers reads the form {"": ..., "text_config": ...} and loads everything in one type.
    UserError names a key or a type that there is not.
    """
    if not isinstance(dtype, Mapping):
        yield dtype
        return
    unknown = sorted(set(dtype) - {"", *OF_CONFIGS})
    if unknown:
        raise UserError(f"dtype: unknown {unknown}; use '', {', '.join(map(repr, OF_CONFIGS))}")
    # one type for transformers to load in; the others are applied to names as they come
    kinds = {name: _dtype(name, value) for name, value in dtype.items()}
    main = kinds.pop("", torch.get_default_dtype())
    # a context variable: loading calls class methods that take no argument of ours
    token = _LOADED_AS.set({rf"^{OF_CONFIGS[name]}\.": kind for name, kind in kinds.items()})
    try:
        yield main
    finally:
        _LOADED_AS.reset(token)


def loaded_as() -> Mapping[str, torch.dtype]:
    """Patterns of names -> types, of the model that is being loaded."""
    return _LOADED_AS.get({})


def _dtype(name: str, value: Any) -> torch.dtype:
    found = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f"dtype: {name!r}: {value!r} is no type of weights; use torch.bfloat16")
    return found


def keeping_whole(quantization: Any) -> Any:
    """The config of a quantisation with WHOLE left out, unless it names what it leaves out."""
    # each back-end of quantisation has its own name for the list
    for name in SKIPS:
        if hasattr(quantization, name) and getattr(quantization, name) is None:
            quantization = copy.copy(quantization)
            setattr(quantization, name, list(WHOLE))
            logger.warning(
                "%s: %s keep their precision; give your own list to choose others",
                *(name, ", ".join(WHOLE)),
            )
    return quantization


def check_bytes(folder: Path) -> None:
    """DamagedData names the first file that is not as data.json promises; UserError without one."""
    about = folder / "data.json"
    if not about.is_file():
        raise UserError(f"verify: {folder}: no data.json that vouches for its files; leave it out")
    promised = json.loads(about.read_bytes())["files"]
    for name, digest in promised.items():
        file = folder / Path(name).name
        if not file.is_file() or sha256_file(file) != digest:
            raise DamagedData(f"{file}: not the bytes that data.json promises; export it again")
    # a file that nobody vouches for would be loaded beside those that were checked
    read = {path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")}
    for name in sorted(read - set(promised)):
        raise DamagedData(f"{folder / name}: data.json does not know it; export the folder again")


def check_whole(where: object, info: Mapping[str, Any]) -> None:
    """DamagedData names a tensor that a folder lacks, or has too much; `info` is transformers'."""
    for key, said in (("missing_keys", "is missing"), ("unexpected_keys", "is of no part")):
        for name in sorted(info[key]):
            raise DamagedData(f"{where}: tensor {name} {said}; export it again")
