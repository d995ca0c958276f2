"""What a part's `init` names, looked into: which kind of weights, their config, their headers.

    decoder   a folder of a causal language model, as published: config.json, tokenizer.json,
              model.safetensors or its shards
    siglip2   a folder of a SigLIP 2 (NaFlex), its encoder alone or the whole of it
    oryx      oryx_vit.pth, or its folder, or the same keys in safetensors
    tower     what `python -m train.weights.convert` writes: our names in one safetensors file
    slowfast  a model folder of ours, or one that an adapter was merged into

Everything here is read from configs and headers, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.errors import UserError
from train.model.parts import PARTS
from train.weights.folder_json import DESCRIPTION, read_description, read_model_config
from train.weights.published import ORYX_PREFIX
from train.weights.tensor_files import Stored, checked, stored_in, stored_in_folder

DECODER = "decoder"
SIGLIP2 = "siglip2"
ORYX = "oryx"
TOWER = "tower"
SLOWFAST = "slowfast"
HOLDS = {
    DECODER: ("decoder",),
    SIGLIP2: ("tower",),
    ORYX: ("tower",),
    TOWER: ("tower",),
    SLOWFAST: ("tower", "projector", "decoder"),
}
"""Which parts of a model each kind of source can start."""
PICKLE = "oryx_vit.pth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Weights that lie at `path`, a file or a folder; `where` is how the config names them.

    `stored` is empty for a pickle, whose names are known when it is read. `digests` are the sha256
    of files that somebody vouches for, by file name.
    """

    where: str
    path: Path
    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, Stored] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        """What says which tensors there are: the config, or the file itself."""
        return self.path / "config.json" if self.path.is_dir() else self.path


def open_source(where: str) -> Source:
    """Look into a local file or folder, or a repository of the hub; UserError if it is none."""
    path = _local(where)
    if path.is_file():
        return _file(where, path)
    if not path.is_dir():
        raise UserError(f"init: {where}: no such file or folder; correct the path, or fetch it")
    # weights that need others below them
    if (path / "adapter_config.json").is_file():
        raise UserError(
            f"init: {where}: an adapter alone; merge it (peft's `merge_and_unload`, then "
            "`save_pretrained`) and name that folder"
        )
    if not (path / "config.json").is_file():
        return _file(where, _only_file(where, path))
    config = read_model_config(path)
    kind = {"slowfast": SLOWFAST, "siglip2": SIGLIP2, "siglip2_vision_model": SIGLIP2}.get(
        str(config.get("model_type")), DECODER
    )
    stored = stored_in_folder(path)
    if kind == SLOWFAST:
        _check_parts(path, stored)
    return Source(
        where=where,
        path=path,
        kind=kind,
        config=config,
        stored=stored,
        digests=_digests(path) | _fetched_digests(where, path),
    )


def _local(where: str) -> Path:
    if not where.startswith("hf://"):
        return Path(where).expanduser()
    from train.weights.hub_folder import fetched_folder  # most starts need no network

    return fetched_folder(where)


def _file(where: str, path: Path) -> Source:
    digests = _fetched_digests(where, path.parent)
    if path.suffix != ".safetensors":
        if path.name != PICKLE:
            raise UserError(
                f"init: {where}: {path.name}: weights are read from .safetensors, and of pickles "
                f"from {PICKLE} alone; convert it"
            )
        # a pickle tells its names only when it is read, which takes seconds and torch
        return Source(where=where, path=path, kind=ORYX, digests=digests)
    stored = stored_in(path)
    names = {name.removeprefix(ORYX_PREFIX) for name in stored}
    # one key that only this layout has tells it
    kinds = {"pos_embed": ORYX, "embeddings.position_embedding": TOWER}
    kind = next((kinds[name] for name in kinds if name in names), None)
    if kind is None:
        raise UserError(
            f"init: {where}: {path.name} holds no vision tower (neither {' nor '.join(kinds)}); "
            "name the folder that its config.json is in"
        )
    return Source(where=where, path=path, kind=kind, stored=stored, digests=digests)


def _only_file(where: str, folder: Path) -> Path:
    if (folder / PICKLE).is_file():
        return folder / PICKLE
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(
            f"init: {where}: no config.json, no {PICKLE} and {len(files)} safetensors files in it; "
            "name a folder of weights as published, or a model folder of ours"
        )
    return files[0]


def _check_parts(path: Path, stored: Mapping[str, Stored]) -> None:
    modules = [module for part in PARTS.values() for module in part]
    for name in stored:
        if name.partition(".")[0] not in modules:
            raise UserError(
                f"{stored[name].file}: {name} {list(stored[name].shape)} is of no part of a model; "
                f"fetch or export {path} again"
            )


def _digests(folder: Path) -> dict[str, str]:
    """What our model folders say of their files; published ones, and what an adapter was merged
    into, say nothing."""
    files: dict[str, str] = {}
    if (folder / DESCRIPTION).is_file():
        files = read_description(folder)["files"]
    for name in files:
        if not name.endswith(".safetensors"):  # those are checked as they are read
            checked(folder / name, files[name])
    return files


def _fetched_digests(where: str, path: Path) -> dict[str, str]:
    """The cache names a fetched file's folder by its sha256 (`pipeline.fetch.local_files`)."""
    if not where.startswith("hf://"):
        return {}
    return {link.name: link.readlink().parent.name for link in path.iterdir()}
