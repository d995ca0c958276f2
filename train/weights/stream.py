"""Stored tensors -> a model's parameters, file by file: nobody holds more than one file at a time.

Each file is hashed before its tensors are taken, so that bytes that are not those somebody vouches
for (`Source.digests`) end the run before its first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from train.model.finite import check_finite
from train.weights.convert import joined, read_pickle
from train.weights.published import Table
from train.weights.source import Source
from train.weights.tensor_files import Stored, checked

Put = Callable[[str, Tensor], None]
"""Takes our name of a parameter and its whole value, on the CPU, and keeps what is its to keep."""


def stream(source: Source, table: Table, put: Put) -> dict[str, str]:
    """Give every tensor of the table to `put`; the sha256 of each file, by its name.

    DamagedData names a file whose bytes are not those that its source vouches for.
    """
    files: dict[str, str] = {}
    # ordered by file, so that each is hashed, opened and read once
    first = {own: source.stored[origin.names[0]].file for own, origin in table.items()}
    for path, names in groupby(sorted(table, key=first.__getitem__), key=first.__getitem__):
        # q, k and v of one matrix may lie in two shards
        wanted = {own: table[own] for own in names}
        others = {source.stored[name].file for each in wanted.values() for name in each.names}
        for file in sorted({path} | others):
            if file.name not in files:
                files[file.name] = checked(file, source.digests.get(file.name))
        for own, tensor in _read(source.stored, wanted):
            check_finite([(own, tensor)], f"init: {source.where}")
            put(own, tensor)
    return files


def _read(stored: Mapping[str, Stored], table: Table) -> Iterator[tuple[str, Tensor]]:
    # mapped files: of each tensor its own bytes are read, when it is asked for
    with ExitStack() as stack:
        get: dict[Path, Callable[[str], Tensor]] = {}
        for name, origin in table.items():
            for stored_name in origin.names:
                path = stored[stored_name].file
                if path not in get:
                    get[path] = _open(path, stack)
            yield (
                name,
                joined(
                    origin,
                    [get[stored[stored_name].file](stored_name) for stored_name in origin.names],
                ),
            )


def _open(path: Path, stack: ExitStack) -> Callable[[str], Tensor]:
    if path.suffix != ".safetensors":
        return read_pickle(path).__getitem__
    file: Any = stack.enter_context(safe_open(path, "pt"))
    get: Callable[[str], Tensor] = file.get_tensor
    return get


def with_names(source: Source) -> Source:
    """The source with the names and shapes of its pickle, if that is what it is."""
    if source.stored or source.path.is_dir():
        return source
    stored = {
        name: Stored(
            file=source.path, name=name, shape=tuple(tensor.shape), dtype=str(tensor.dtype)
        )
        for name, tensor in read_pickle(source.path).items()
    }
    return replace(source, stored=stored)
