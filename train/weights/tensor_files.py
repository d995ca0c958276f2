"""What the headers of safetensors files say, read without torch and without a tensor's bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import DamagedData, UserError
from shards.ids import sha256_file

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_LONGEST = 100 << 20  # bytes of a header, and of a JSON file


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor as it is stored: its file, and its name, shape and type there."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def stored_in_folder(folder: Path) -> dict[str, Stored]:
    """Every tensor of a folder as transformers saves it: one file, or several and an index."""
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise UserError(f"{folder}: neither {SINGLE} nor {INDEX} in it; fetch it again")
        return stored_in(folder / SINGLE)
    # an index: {"weight_map": {tensor: file}}
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise UserError(f"{folder / INDEX}: no `weight_map` of names to files; fetch it again")
    tensors: dict[str, Stored] = {}
    for name in sorted(set(places.values())):
        # the name alone: an index cannot point out of its folder
        tensors |= stored_in(folder / Path(name).name)
    # in one of the two only: the index, or the files
    for tensor in sorted(places.keys() ^ tensors.keys()):
        file = tensors[tensor].file.name if tensor in tensors else places[tensor]
        lacking, naming = (INDEX, file) if tensor in tensors else (file, INDEX)
        raise UserError(
            f"{folder / lacking}: lacks {tensor}, which {naming} names; fetch the folder again"
        )
    return tensors


def stored_in(path: Path) -> dict[str, Stored]:
    """Every tensor of one file; DamagedData if it is cut short, or no such file at all."""
    tensors, ends = _header(path)
    stored = {}
    for name, value in tensors.items():
        shape, dtype, start, end = _described(path, name, value)
        if dtype not in FLOATS:
            raise UserError(
                f"{path}: {name} is of type {dtype}, not one of {', '.join(FLOATS)}; quantised "
                "weights cannot be trained, name the repository of the original ones"
            )
        # offsets count from the end of the header, and each tensor fills its span
        if not 0 <= start <= end <= ends or end - start != math.prod(shape) * FLOATS[dtype]:
            raise DamagedData(
                f"{path}: {name} of shape {shape} at bytes {start} to {end} of {ends}; fetch it "
                "again"
            )
        stored[name] = Stored(file=path, name=name, shape=shape, dtype=dtype)
    return stored


def _described(path: Path, name: str, value: Any) -> tuple[tuple[int, ...], str, int, int]:
    """Shape, type, first and last byte of a tensor; DamagedData unless each is one."""
    wrong = f"{path}: {name[:80]!r} is not described as a tensor; fetch it again"
    try:
        shape, dtype, (start, end) = value["shape"], value["dtype"], value["data_offsets"]
        whole = [*shape, start, end]
    except (TypeError, KeyError, ValueError) as error:
        raise DamagedData(wrong) from error
    if not isinstance(dtype, str) or any(type(n) is not int or n < 0 for n in whole):
        raise DamagedData(wrong)
    return tuple(shape), dtype, start, end


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and how many bytes of tensors follow it."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch the folder again")
    size = path.stat().st_size
    with path.open("rb") as file:
        # 8 bytes of length (little-endian), the header as JSON, then the tensors (safetensors)
        length = int.from_bytes(file.read(8), "little")
        # the format's own limit of 100 MB keeps a damaged length from being allocated
        if not 2 <= length <= min(size - 8, _LONGEST):
            raise DamagedData(f"{path}: not a safetensors file, or cut short; fetch it again")
        try:
            tensors = json.loads(file.read(length))
            tensors.pop("__metadata__", None)
            # the last tensor ends where the file does: else it was cut short
            ends = max((value["data_offsets"][1] for value in tensors.values()), default=0)
            whole = 8 + length + ends == size
        except (
            ValueError,
            AttributeError,
            TypeError,
            KeyError,
            IndexError,
            RecursionError,
        ) as error:
            raise DamagedData(f"{path}: a damaged header ({error}); fetch it again") from error
    if not whole:
        raise DamagedData(f"{path}: {size} bytes, its header says {8 + length + ends}; fetch again")
    return tensors, ends


def checked(path: Path, digest: str | None) -> str:
    """The file's sha256; DamagedData where another one is promised."""
    found = sha256_file(path)
    if digest is not None and digest != found:
        raise DamagedData(f"{path}: sha256 {found}, {digest} is promised; fetch or export it again")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of an object; UserError if there is none."""
    try:
        if (nbytes := path.stat().st_size) > _LONGEST:
            raise UserError(f"{path}: {nbytes} bytes, more than {_LONGEST}; fetch it again")
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; fetch the folder again") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not an object; fetch it again")
    return value


def misfits(
    wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, Stored], where: Path, asks: str
) -> Iterator[str]:
    """What `stored` lacks, has in another shape or has too much, each as file, name, both values.

    `wanted` are shapes by stored name; `asks` says what asks for them.
    """
    for name, shape in wanted.items():
        if name not in stored:
            yield f"{where}: no tensor {name}; {asks} wants it with shape {list(shape)}"
        elif stored[name].shape != shape:
            has = list(stored[name].shape)
            yield f"{stored[name].file}: {name} has shape {has}, {asks} wants {list(shape)}"
    for name in stored.keys() - wanted.keys():
        yield f"{stored[name].file}: {name} {list(stored[name].shape)} is unknown to {asks}"
