"""Filter decisions as tables: the refusals and matches that a plan writes down."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mixtures.pool.clusters import Comparison
from mixtures.selection.filter_decisions import FilterDecisions, leaks_of
from shards.id_arrays import find, hex_of, ids_of
from shards.index import MATCHES, REFUSED


def refusal_table(decisions: FilterDecisions, origins: pa.Table) -> pa.Table:
    """Rows of REFUSED, in the order of the samples; `origins` has record, dataset and revision."""
    # refusals were collected rule by rule; the table stands in the order of the samples
    indices = np.concatenate([np.empty(0, np.int64), *(r.indices for r in decisions.refusals)])
    said = [(r.stage, r.code, detail) for r in decisions.refusals for detail in r.details]
    order = np.argsort(indices, kind="stable")
    said = [said[i] for i in order.tolist()]
    stages, codes, details = ([each[i] for each in said] for i in range(3))
    about = origins.to_pydict()
    pairs = zip(about["dataset"], about["revision"], strict=True)
    return pa.table(
        [
            pa.array([decisions.samples.name] * len(indices), pa.string()),
            pa.array(about["record"], pa.string()),
            hex_of(decisions.samples.key[indices[order]]).cast(pa.string()),
            pa.array(stages, pa.string()),
            pa.array(codes, pa.string()),
            pa.array(details, pa.string()),
            pa.array([f"{dataset}@{revision}" for dataset, revision in pairs], pa.string()),
        ],
        schema=REFUSED,
    )


def match_table(decisions: FilterDecisions, comparison: Comparison, leaked: pa.Table) -> pa.Table:
    """Rows of MATCHES: every sample of a source that matches evaluation data, refused or not."""
    samples = decisions.samples
    code = dict[int, str]()
    for each in decisions.refusals:
        code |= dict.fromkeys(each.indices.tolist(), each.code)
    # matches by media: of every clip of the sample, each leak of its cluster once
    media = np.flatnonzero(samples.per_sample(comparison.leaked)).tolist()
    matches = [
        (index, "media", *leak)
        for index in media
        for leak in sorted(
            {leak for _, leaks in leaks_of(samples, index, comparison) for leak in leaks}
        )
    ]
    # matches by text
    indices = find(np.ascontiguousarray(samples.key), ids_of(leaked["key"])).tolist()
    rows = leaked.select(["benchmark", "held_out", "relation"]).to_pylist()
    matches += [
        (at, "text", row["benchmark"], "same", row["held_out"], row["relation"])
        for at, row in zip(indices, rows, strict=True)
    ]
    keys = [samples.key[index].tobytes().hex() for index, *_ in matches]
    codes = [code.get(index, "") for index, *_ in matches]
    rest = [pa.array([match[i] for match in matches], pa.string()) for i in range(1, 6)]
    names = pa.array([samples.name] * len(matches), pa.string())
    columns = [names, pa.array(keys, pa.string()), *rest, pa.array(codes, pa.string())]
    order = [(name, "ascending") for name in MATCHES.names]
    return pa.table(columns, schema=MATCHES).sort_by(order)
