"""One adapter per published annotation format, and the catalogue of public datasets.

An adapter takes the annotation file and yields exactly one `Record` or `RowRefusal` per published
record. It never raises for a bad row; a file that is not of the format raises UserError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mixtures.strict_yaml import load_yaml
from pipeline.records import Record, RowRefusal
from pipeline.sources import llava_json, nextqa_csv, parquet_images
from shards.errors import UserError

Adapter = Callable[[Path], Iterator[Record | RowRefusal]]

FORMATS: dict[str, Adapter] = {
    "llava_json": llava_json.read,
    "parquet_images": parquet_images.read,
    "nextqa_csv": nextqa_csv.read,
}

CATALOGUE = Path(__file__).with_name("catalogue.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One catalogue entry: `ids` are hub ids or addresses, the first one is tried first."""

    name: str
    ids: tuple[str, ...]
    licence: str
    format: str
    kind: str
    note: str


def catalogue() -> dict[str, Dataset]:
    """Every dataset of the catalogue by name; UserError names an entry that does not fit."""
    entries = load_yaml(CATALOGUE)
    fields = set(Dataset.__dataclass_fields__) - {"name"}
    found = {}
    for name, entry in entries.items():
        if set(entry) != fields or entry["format"] not in FORMATS:
            raise UserError(f"{CATALOGUE}: {name}: needs exactly {sorted(fields)}, a known format")
        found[name] = Dataset(name=name, **entry | {"ids": tuple(entry["ids"])})
    return found
