"""A model that is made but unset gets its weights: each part's from its source, or drawn anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transformers import PreTrainedModel

from train.config import PARTS, Parts, RandomInit
from train.model.parts import part_of
from train.weights.drawn import drawn
from train.weights.published import Shape, Table
from train.weights.source import Source
from train.weights.start import Sources
from train.weights.stream import Put, stream
from train.weights.tables import built_table, check_table


def fill(
    model: PreTrainedModel,
    parts: Parts,
    sources: Sources,
    shapes: Mapping[str, Shape],
    put: Put,
    wanted: Iterable[str] = PARTS,
) -> None:
    """Give every parameter of the `wanted` parts its value; `shapes` are those of whole ones, by
    name.

    Every rank calls this alike. UserError names the first tensor that does not fit, before any is
    read; DamagedData a file that is not what somebody vouches for.
    """
    tables = {part: _table(part, source, shapes) for part, source in sources.items()}
    for part in wanted:
        init = getattr(parts, part).init
        if isinstance(init, RandomInit):
            for name, value in drawn(model, part, init.seed, shapes):
                put(name, value)
        else:
            stream(sources[part], tables[part], put)


def _table(part: str, source: Source, shapes: Mapping[str, Shape]) -> Table:
    table = built_table(part, source, shapes)
    check_table(part, source, table)
    own = {name: shape for name, shape in shapes.items() if part_of(name) == part}
    made = {name: origin.shape for name, origin in table.items()}
    assert made == own, f"{part}: {sorted(made.items() ^ own.items())[:4]}"
    return table
