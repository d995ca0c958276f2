"""Filter decisions as tables: the refusals and matches that a plan writes down."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mixtures.pool.clusters import Comparison
from mixtures.selection.filter_decisions import FilterDecisions, leaks_of
from shards.id_arrays import find, hex_of, ids_of
from shards.index import MATCHES, REFUSED


def refusal_table(decisions: FilterDecisions, origins: pa.Table) -> pa.Table:
    """Rows of REFUSED, by place; `origins` has record, dataset and revision of those refused."""
    # refusals were collected rule by rule; the table stands in the order of the samples
    places = np.concatenate([np.empty(0, np.int64), *(r.places for r in decisions.refusals)])
    said = [(r.stage, r.code, detail) for r in decisions.refusals for detail in r.details]
    order = np.argsort(places, kind="stable")
    said = [said[i] for i in order.tolist()]
    stages, codes, details = ([each[i] for each in said] for i in range(3))
    about = origins.to_pydict()
    pairs = zip(about["dataset"], about["revision"], strict=True)
    return pa.table(
        [
            pa.array([decisions.samples.name] * len(places), pa.string()),
            pa.array(about["record"], pa.string()),
            hex_of(decisions.samples.key[places[order]]).cast(pa.string()),
            pa.array(stages, pa.string()),
            pa.array(codes, pa.string()),
            pa.array(details, pa.string()),
            pa.array([f"{dataset}@{revision}" for dataset, revision in pairs], pa.string()),
        ],
        schema=REFUSED,
    )


def match_table(decisions: FilterDecisions, found: Comparison, leaked: pa.Table) -> pa.Table:
    """Rows of MATCHES: every sample of a source that matches evaluation data, refused or not."""
    samples = decisions.samples
    code = dict[int, str]()
    for each in decisions.refusals:
        code |= dict.fromkeys(each.places.tolist(), each.code)
    # matches by media: of every clip of the sample, each leak of its cluster once
    media = np.flatnonzero(samples.per_sample(found.leaked)).tolist()
    matches = [
        (place, "media", *leak)
        for place in media
        for leak in sorted({leak for _, leaks in leaks_of(samples, place, found) for leak in leaks})
    ]
    # matches by text
    places = find(np.ascontiguousarray(samples.key), ids_of(leaked["key"])).tolist()
    rows = leaked.select(["benchmark", "held_out", "relation"]).to_pylist()
    matches += [
        (at, "text", row["benchmark"], "same", row["held_out"], row["relation"])
        for at, row in zip(places, rows, strict=True)
    ]
    keys = [samples.key[place].tobytes().hex() for place, *_ in matches]
    codes = [code.get(place, "") for place, *_ in matches]
    rest = [pa.array([match[i] for match in matches], pa.string()) for i in range(1, 6)]
    names = pa.array([samples.name] * len(matches), pa.string())
    columns = [names, pa.array(keys, pa.string()), *rest, pa.array(codes, pa.string())]
    order = [(name, "ascending") for name in MATCHES.names]
    return pa.table(columns, schema=MATCHES).sort_by(order)
