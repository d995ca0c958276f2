"""Keywords of transformers' base classes: each acts here, or is refused by its name.

Their signatures end in `**kwargs`, so a misspelt keyword, or one that means nothing to this model,
would otherwise be taken and forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any


def refuse_others(where: str, given: Mapping[str, Any], known: Collection[str], why: str) -> None:
    """TypeError names every keyword of `given` that is not `known`; None means not given.

    `why` says what to do instead.
    """
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    if not unknown:
        return
    near = get_close_matches(unknown[0], known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise TypeError(f"{where}: nothing here acts on {', '.join(map(repr, unknown))}; {why}{hint}")
