"""Rows of published Parquet files, a few at a time, each a dict or the reason why it is not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.names import matching
from pipeline.sources.fields import CHANGES_MEANING, Row
from pipeline.sources.json_rows import MAX_ROW_BYTES
from pipeline.untrusted import MAX_RATIO, SLACK, Problem
from shards.errors import UserError
from shards.index import UNREADABLE

NOT_READ = "(bytes, not read)"
NO_VALUE = "(not readable)"
_BUFFER = 1 << 20
AT_ONCE = 16
"""Rows that are unpacked together at most: a dictionary repeats one large value in all of them."""


def rows(
    annotations: Path,
    forms: Sequence[tuple[str, ...]],
    at_a_time: int,
    besides: Callable[[pa.Field], bool] = lambda _: False,
    *,
    others: bool = True,
) -> Iterator[tuple[Path, int, Row | Problem]]:
    """(file, row number in it, row) of a file, or of every `*.parquet` of a folder in their order.

    Of a file are read the columns of the first of `forms` that it holds, and `besides` any column
    that answers to it; they and the fields of structs are found by name, for publishers order them
    differently. With `others` a row has every other column as well, NOT_READ where it holds bytes,
    for what is left behind is told (pipeline.sources.fields).

    UserError for a file that cannot be read, or that unpacks beyond the bound of archives: a
    dictionary lets a small file repeat a large value for ever.
    """
    files = matching(annotations, "*.parquet") if annotations.is_dir() else [annotations]
    if not files:
        raise UserError(f"{annotations}: holds no *.parquet; set the key 'annotations'")
    for path in files:
        number = unpacked = 0
        try:
            with by_pages(path) as file:
                groups = range(file.num_row_groups)
                # sizes that the footer states, before anything is unpacked
                _bound(path, sum(file.metadata.row_group(i).total_byte_size for i in groups))
                form = _form(file.schema_arrow.names, forms, path)
                read = {*form, *(f.name for f in file.schema_arrow if besides(f))}
                # columns that are read, and of the others those whose values are small enough to be
                # told
                rest = [f for f in file.schema_arrow if others and f.name not in read]
                named_columns = {
                    f.name for f in rest if f.name in CHANGES_MEANING or not has_bytes(f.type)
                }
                unread_columns = dict.fromkeys(
                    (f.name for f in rest if f.name not in named_columns), NOT_READ
                )
                columns = [name for name in file.schema_arrow.names if name in read | named_columns]
                # few rows at a time: a dictionary-encoded value is repeated in memory for each of
                # them
                for batch in file.iter_batches(batch_size=min(at_a_time, AT_ONCE), columns=columns):
                    unpacked += batch.nbytes
                    _bound(path, unpacked)
                    for i in range(batch.num_rows):
                        row = _row(batch.slice(i, 1), read)
                        yield (
                            path,
                            number,
                            row if isinstance(row, Problem) else row | unread_columns,
                        )
                        number += 1
        except UNREADABLE as error:
            raise UserError(
                f"{path}: not readable as Parquet: {error}; download it again"
            ) from error


def by_pages(path: Path) -> pq.ParquetFile:
    """A file whose columns are read page by page: a row group of media may outgrow memory."""
    # arrow would fetch a row group's columns whole, before the first of its rows
    return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)


def _bound(path: Path, unpacked: int) -> None:
    nbytes = path.stat().st_size
    if unpacked > MAX_RATIO * nbytes + SLACK:
        raise UserError(
            f"{path}: its {nbytes} bytes unpack to more than {MAX_RATIO} times as many; it is "
            "damaged or hostile, fetch it from its publisher"
        )


def _form(present: list[str], forms: Sequence[tuple[str, ...]], path: Path) -> tuple[str, ...]:
    for columns in forms:
        if set(columns) <= set(present):
            return columns
    needed = " or ".join(map(str, forms))
    raise UserError(
        f"{path}: columns {present}; this format needs {needed}, "
        "choose another 'format' in the recipe"
    )


def has_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, which may be media and large."""
    if pa.types.is_struct(kind):
        return any(has_bytes(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return has_bytes(kind.value_type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _row(batch: pa.RecordBatch, read: Collection[str]) -> Row | Problem:
    """The one row; what cannot be read of a column that nobody reads is no fault of its row."""
    plain = (field.name for field in batch.schema if not has_bytes(field.type))
    # text columns are bounded as rows of JSON are; bytes have their own bounds
    text = sum(batch.column(name).nbytes for name in plain)
    if text > MAX_ROW_BYTES:
        return Problem("ROW_TOO_LONG", f"more than {MAX_ROW_BYTES} bytes")
    row: Row = {}
    for name in batch.schema.names:
        try:
            row[name] = batch.column(name)[0].as_py()
        except (ValueError, OverflowError) as error:
            # a value that nobody reads may be broken
            if name not in read:
                row[name] = NO_VALUE
                continue
            code = "ROW_NOT_UTF8" if isinstance(error, UnicodeDecodeError) else "ROW_WRONG_TYPE"
            return Problem(code, f"{name}: {error}"[:100])
    return row
