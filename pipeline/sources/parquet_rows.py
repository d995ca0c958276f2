"""Rows of published Parquet files, a few at a time, each a dict or the reason why it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.untrusted import MAX_RATIO, SLACK, Problem
from shards.errors import UserError

Row = dict[str, Any]


def rows(
    annotations: Path,
    forms: Sequence[tuple[str, ...]],
    at_a_time: int,
    besides: Callable[[pa.Field], bool] = lambda _: False,
) -> Iterator[tuple[Path, int, Row | Problem]]:
    """(file, row number in it, row) of a file, or of every `*.parquet` of a folder by name.

    Of a file are read the columns of the first of `forms` that it holds, and `besides` any column
    that answers to it; they and the fields of structs are found by name, for publishers order them
    differently. UserError for a file that cannot be read, or that unpacks beyond the bound of
    archives: a dictionary lets a small file repeat a large value for ever.
    """
    files = sorted(annotations.glob("*.parquet")) if annotations.is_dir() else [annotations]
    if not files:
        raise UserError(f"{annotations}: holds no *.parquet; set the key 'annotations'")
    for path in files:
        number = unpacked = 0
        try:
            with pq.ParquetFile(path) as file:
                groups = range(file.num_row_groups)
                _bound(path, sum(file.metadata.row_group(i).total_byte_size for i in groups))
                form = _form(file.schema_arrow.names, forms, path)
                columns = [*form, *(f.name for f in file.schema_arrow if besides(f))]
                for batch in file.iter_batches(batch_size=at_a_time, columns=columns):
                    unpacked += batch.nbytes
                    _bound(path, unpacked)
                    for i in range(batch.num_rows):
                        yield path, number, _row(batch, i)
                        number += 1
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{path}: not readable as Parquet: {error}; download it again"
            ) from error


def _bound(path: Path, unpacked: int) -> None:
    nbytes = path.stat().st_size
    if unpacked > MAX_RATIO * nbytes + SLACK:
        raise UserError(
            f"{path}: its {nbytes} bytes unpack to more than {MAX_RATIO} times as many; it is "
            "damaged or hostile, fetch it from its publisher"
        )


def _form(found: list[str], forms: Sequence[tuple[str, ...]], path: Path) -> tuple[str, ...]:
    for columns in forms:
        if set(columns) <= set(found):
            return columns
    needed = " or ".join(map(str, forms))
    raise UserError(
        f"{path}: columns {found}; this format needs {needed}, "
        "choose another 'format' in the recipe"
    )


def _row(batch: pa.RecordBatch, i: int) -> Row | Problem:
    try:
        return {name: batch.column(name)[i].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:
        return Problem("ROW_NOT_UTF8", str(error)[:100])
