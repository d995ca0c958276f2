"""Ids as arrays: sorted, found and spelled as their bytes are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.id_arrays import as_column, find, hex_of, ids_of, sorting

IDS = st.lists(st.binary(min_size=16, max_size=16))
NEAR = st.lists(st.sampled_from([bytes(8) + bytes([i] * 8) for i in range(5)] + [bytes([9] * 16)]))


def array_of(ids: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(ids), "V16")


@given(st.one_of(IDS, NEAR), st.one_of(IDS, NEAR))
def test_ids_are_found_where_they_stand(ids: list[bytes], wanted: list[bytes]) -> None:
    ordered = sorted(set(ids))
    assert sorted(ids) == [array_of(ids)[i].tobytes() for i in sorting(array_of(ids))]
    places = [ordered.index(one) if one in ordered else -1 for one in [*wanted, *ids]]
    assert find(array_of(ordered), array_of([*wanted, *ids])).tolist() == places


@given(IDS)
def test_ids_survive_their_columns(ids: list[bytes]) -> None:
    array = array_of(ids)
    assert ids_of(as_column(array)).tobytes() == array.tobytes()
    names = hex_of(array).cast(pa.string())
    assert names.to_pylist() == [one.hex() for one in ids]
    assert ids_of(pa.chunked_array([names, names])).tobytes() == array.tobytes() * 2
    assert ids_of(names.slice(1)).tobytes() == array[1:].tobytes()


def test_what_is_no_id_is_a_bug() -> None:
    with pytest.raises(ValueError, match="32 hex"):
        ids_of(pa.array(["beef"]))
