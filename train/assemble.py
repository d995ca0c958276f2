"""A start model of published weights: a decoder, a vision tower, and a projector drawn anew.

The tensors keep their bytes and types, so what is put together here is the decoder and the tower as
they were published; the folder is one like those that runs leave, for `chat`, `evaluate`,
`--init-from` and transformers.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig

from mixtures.recipe.load import load_recipe
from mixtures.tokens.text import TextCodec
from shards.errors import UserError, opening
from train.config import Config, Part, Parts
from train.data.render import Rules
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.projectors import ARRANGEMENTS
from train.model_folder import Description, describe, generation_values, model_config
from train.weights.fill import fill
from train.weights.hub_folder import fetched_file
from train.weights.model_shards import Shards
from train.weights.packed_check import check_packed
from train.weights.start import files_of, open_sources
from train.weights.stream import with_names
from train.weights.tables import stored_of

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def assemble(
    decoder: str, tower_folder: str, recipe_path: Path, out: Path, allowed: Sequence[str] = ()
) -> int:
    """Write the model folder `out` in one step; the number of its parameters.

    The recipe gives layout, frames, media profile and tokenizer, and its arrangement the projector.
    UserError where weights, recipe and tokenizer do not fit each other, or `out` is there already.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; give another --out, or remove it")
    recipe = load_recipe(recipe_path, allowed)
    # the recipe's tokenizer, byte for byte: the one that its manifests will count with
    tokenizer = fetched_file(recipe.text.tokenizer, f"{recipe_path}: text: tokenizer").read_bytes()
    codec = TextCodec(tokenizer, recipe.text.template, recipe.text.tokenizer)
    rules = Rules(view=recipe.frames, layout=recipe.layout, codec=codec)
    parts = Parts(tower=Part(init=tower_folder), decoder=Part(init=decoder))
    config = Config(parts=parts, projector=_projector_for(recipe.layout.arrangement))
    sources = {part: with_names(source) for part, source in open_sources(parts).items()}
    wanted = model_config(config, rules, sources)
    # before gigabytes are read: a decoder that packs would train wrongly is refused here
    check_packed(wanted.text_config.to_dict())
    # the folder has one type: that of most of the decoder's tensors
    kinds = Counter(each.dtype for each in stored_of("decoder", sources["decoder"]).values())
    wanted.dtype = _DTYPES[kinds.most_common(1)[0][0]]
    # shapes alone: tensors stream from file to file
    with torch.device("meta"), opening(files_of(sources)):
        model = SlowFastForConditionalGeneration(wanted)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    shards = Shards(temporary)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    fill(model, parts, sources, shapes, shards.put)
    shards.close()
    wanted.save_pretrained(temporary)
    GenerationConfig(**generation_values(wanted, codec)).save_pretrained(temporary)
    about = Description(rules=rules, profile=recipe.profile, manifest_id="")
    describe(temporary, tokenizer, about)
    # a kill leaves a hidden folder, which the next try removes
    temporary.rename(out)
    return shards.parameters


def _projector_for(arrangement: str) -> str:
    """The first projector that fits the arrangement alone."""
    return next(name for name, fits in ARRANGEMENTS.items() if fits == arrangement)
