"""A checkpoint of any engine, or weights that transformers saved -> a model folder, on a CPU.

Nobody holds more than one file of it at a time. Of weights that were not trained, a checkpoint
knows source and digest: they are read there, or where the caller says they lie now, and adapters
are added to them. Alone, adapters become a folder of peft's, with what was trained beside them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mixtures.manifest.files import MANIFEST
from shards.errors import UserError
from shards.ids import sha256_file
from train.adapter import FIRST, Adapter, is_adapters, leaf_of, peft_name
from train.config import PARTS, Parts, RandomInit, all_from
from train.engine import checkpoint
from train.engine.adapters import lora_config, with_adapter
from train.engine.checkpoint import Checkpoint
from train.engine.state_files import read_weights
from train.json_files import fsync, write_json
from train.model.config import SlowFastConfig
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.parts import part_of
from train.model.weight_digest import WeightDigest
from train.weights.fill import fill
from train.weights.folder_json import DESCRIPTION, read_description
from train.weights.model_shards import Shards
from train.weights.start import open_sources
from train.weights.stream import with_names

CARD = "README.md"


def export_any(
    source: Path, out: Path, like: Path | None, places: Mapping[str, str], *, alone: bool = False
) -> int:
    """What `python -m train export` does; the number of parameters in `out`. `alone`: adapters
    without the weights that they are added to."""
    if out.exists():
        raise UserError(f"{out}: is there already; give another --out, or remove it")
    if like is not None:
        return export_merged(source, like, out)
    committed = checkpoint.read(source)
    checkpoint.verify(committed)
    return export_adapters(committed, out) if alone else export(committed, out, places)


def export(committed: Checkpoint, out: Path, places: Mapping[str, str]) -> int:
    """Write the model of a verified checkpoint in one step; the number of its parameters.

    `places` names, by part, where a part that was not trained lies now.
    """
    described = committed.folder / checkpoint.MODEL
    config = SlowFastConfig.from_pretrained(described)
    model = on_paper(config)
    with written(out, described) as folder:
        shards = Shards(folder)
        names = {name for name, _ in model.named_parameters()}
        # adapters are small and kept: what they are added to was not trained and is read below
        adapters = {}
        for name, weight in read_weights(committed.folder):
            if is_adapters(name):
                adapters[name] = weight
            else:
                # from the fp32 masters, rounded once to the type that the run computed with
                shards.put(name, weight.to(config.dtype))
        # a frozen part has no bytes in the checkpoint, only the name and the digest of its source
        for part in committed.frozen:
            _put_frozen(part, committed, places, model, shards, adapters)
        # every parameter came once, from the checkpoint or from a frozen part's source
        assert shards.files.keys() | shards.held.keys() == names
        shards.close()
        (folder / CARD).write_text(card(described, committed))
    return shards.parameters


def export_adapters(committed: Checkpoint, out: Path) -> int:
    """Write a verified checkpoint's adapters, and the parts that were trained whole, as peft has
    them; the number of their parameters. UserError if it has no adapter."""
    weights = dict(read_weights(committed.folder))
    adapters = adapters_in(committed, weights)
    if not adapters:
        raise UserError(
            f"{committed.folder}: trained without an adapter; export it without --adapter"
        )
    config = SlowFastConfig.from_pretrained(committed.folder / checkpoint.MODEL)
    # what peft calls `modules_to_save`: stored in full beside the pairs
    whole = sorted({name.partition(".")[0] for name in weights if not is_adapters(name)})
    # safetensors takes no views, and each would be written with all of its storage
    tensors = {peft_name(name): w.to(config.dtype).contiguous() for name, w in weights.items()}
    with in_one_step(out) as folder:
        lora_config(adapters, modules_to_save=whole or None).save_pretrained(folder)
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        (folder / CARD).write_text(card(committed.folder / checkpoint.MODEL, committed))
    return sum(tensor.numel() for tensor in tensors.values())


def adapters_in(committed: Checkpoint, weights: Mapping[str, Tensor]) -> dict[str, Adapter]:
    """The adapters of a checkpoint by part, with the last names of the layers that have one."""
    adapters = {}
    for part, alpha in alphas_of(committed).items():
        firsts = {n: a for n, a in weights.items() if part_of(n) == part and FIRST in n}
        layers = sorted({leaf_of(name.partition(FIRST)[0]) for name in firsts})
        # A is [rank, in]
        rank = next(iter(firsts.values())).shape[0]
        adapters[part] = Adapter(rank=rank, alpha=alpha, targets=tuple(layers))
    return adapters


def alphas_of(committed: Checkpoint) -> dict[str, float]:
    """`alpha` of each part that was trained by an adapter."""
    told = {part: committed.config.get(f"parts: {part}: adapter: alpha") for part in PARTS}
    return {part: float(alpha) for part, alpha in told.items() if alpha is not None}


def export_merged(source: Path, like: Path, out: Path) -> int:
    """The same of a folder that transformers saved, with what `like` says beside its weights."""
    read_description(like)
    config = SlowFastConfig.from_pretrained(like)
    parts = all_from(Parts(), str(source))
    sources = {part: with_names(each) for part, each in open_sources(parts).items()}
    model = on_paper(config)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    with written(out, like) as folder:
        shards = Shards(folder)
        fill(model, parts, sources, shapes, shards.put)
        shards.close()
    return shards.parameters


def on_paper(config: SlowFastConfig) -> SlowFastForConditionalGeneration:
    """The model without its weights: names, shapes, and the rules by which parts are drawn."""
    # meta tensors have shapes and no bytes: the model itself is never held
    with torch.device("meta"):
        model = SlowFastForConditionalGeneration(config)
    model.tie_weights()
    return model


@contextmanager
def written(out: Path, described: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` in one step: what `described` says of a model, but for
    its weights, is there, and the sha256 of everything at the end."""
    about = read_description(described)
    with in_one_step(out) as folder:
        for name in about["files"]:
            if not name.startswith("model") and name != CARD:
                shutil.copy(described / name, folder / name)
        yield folder
        # digests are taken when all is written, and the file that holds them comes last
        about["files"] = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        write_json(folder / DESCRIPTION, about)


@contextmanager
def in_one_step(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when all that is in it is on the disk."""
    temporary = out.with_name(f".{out.name}.tmp")
    # what a kill left of an earlier try
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    # bytes first, then their names: a machine that dies leaves the whole folder, or none
    for path in (*temporary.rglob("*"), temporary):
        fsync(path)
    if out.exists():
        shutil.rmtree(out)
    # the one moment in which it appears: until then a kill leaves nothing under its name
    temporary.rename(out)
    fsync(out.parent)


def _put_frozen(
    part: str,
    committed: Checkpoint,
    places: Mapping[str, str],
    model: SlowFastForConditionalGeneration,
    shards: Shards,
    adapters: Mapping[str, Tensor],
) -> None:
    """Read weights that were not trained, see that they are those that the others learned with, and
    add the adapters that they have."""
    alphas = alphas_of(committed)
    where = places.get(part, committed.frozen[part]["source"])
    # only `init` is read of it: how the part was trained plays no role here
    parts = replace(Parts(), **{part: replace(Parts().tower, init=_init(where))})
    sources = {p: with_names(s) for p, s in open_sources(parts, [part]).items()}
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if part_of(n) == part}
    digest = WeightDigest()

    def put(name: str, value: Tensor) -> None:
        cast = value.to(model.config.dtype)
        # of the weights without their adapters, in the type of the run, as the start of the run
        # took it
        digest.add(name, cast)
        shards.put(name, with_adapter(name, cast, adapters, alphas))

    fill(model, parts, sources, shapes, put, [part])
    if digest.hexdigest() != committed.frozen[part]["sha256"]:
        raise UserError(
            f"{where}: not the {part} that {committed.folder} was trained over (sha256 of its "
            f"weights {digest.hexdigest()[:12]}, not {committed.frozen[part]['sha256'][:12]}); "
            f"name its place by --init {part}=FOLDER"
        )


def _init(where: str) -> str | RandomInit:
    """What `str` of a part's init was made of."""
    drawn = re.fullmatch(r"\{random: (\d+)\}", where)
    return RandomInit(int(drawn[1])) if drawn else where


def card(described: Path, committed: Checkpoint) -> str:
    """The model card: what it was made of, under which licences, and how to make it again."""
    manifest: dict[str, Any] = json.loads((described / MANIFEST).read_bytes())
    sources = "\n".join(
        f"| {one['name']} | {one['dataset']} | {one['licence']} | {one['revision'][:12]} |"
        for one in manifest["sources"]
    )
    bases = "\n".join(f"- {part}: {committed.bases[part]}" for part in PARTS)
    return (
        "---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n---\n\n"
        f"# SlowFast video language model, step {committed.step} of {committed.total}\n\n"
        f"Base models (their licences are their authors'):\n\n{bases}\n\n"
        f"Manifest `{committed.manifest_id}`:\n\n| source | dataset | licence | revision |\n"
        f"|---|---|---|---|\n{sources}\n"
    )
