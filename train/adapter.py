"""Low-rank adapters of a part (LoRA, Hu et al., arXiv 2106.09685): the keys, and names of weights.

Beside a matrix W of the part, which stays as it is, stand A and B: W + alpha / rank * B A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mixtures.keys import Integer, Rate, Text, key

HEAD = "lm_head"
"""The last layer, which gets none: where it is the table of word vectors, both would change."""
FIRST, SECOND = ".lora_A.", ".lora_B."
"""What stands in the names of A and of B, behind the name of their layer."""
_BASE, _NAMED = ".base_layer.", "default."


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A low-rank adapter (LoRA) is trained in place of the part's own weights, which stay as they
    are: they have no optimizer state and no bytes in checkpoints. It has no dropout."""

    rank: Annotated[Integer, key("Rows of A, columns of B.", "64", least=1)] = 16
    alpha: Annotated[Rate, key("`alpha` / `rank` times B A is added.", "128")] = 32.0
    targets: Annotated[
        tuple[Text, ...] | None,
        key("Last names of the linear layers that get one (default: all but the decoder's head).",
            "[q_proj, v_proj]"),
    ] = None  # fmt: skip
    seed: Annotated[Integer, key("Of the draw of A; B is zero at first.", "1", least=0)] = 0

    def wrong_targets(self) -> str:
        """What is wrong with `targets`, whatever the model; nothing if it may do."""
        if self.targets == ():
            return "names no layer; write some, or remove the key"
        return f"{HEAD} gets no adapter; remove it" if HEAD in (self.targets or ()) else ""


def is_adapters(name: str) -> bool:
    """Whether a parameter of this name is an adapter's."""
    return FIRST in name or SECOND in name


def own_name(name: str) -> str:
    """The name that a parameter has without adapters beside it."""
    return name.replace(_BASE, ".")


def pair_of(name: str) -> tuple[str, str]:
    """The names of A and B beside the weight that has this name without them."""
    module = name.removesuffix(".weight")
    return f"{module}{FIRST}{_NAMED}weight", f"{module}{SECOND}{_NAMED}weight"


def leaf_of(module: str) -> str:
    """The last name of a layer, with the one before it where that is a number."""
    *_, before, last = module.rsplit(".", 2)
    return f"{before}.{last}" if last.isdigit() else last


def peft_name(name: str) -> str:
    """The name that a trained parameter has in a folder of peft's."""
    for which in (FIRST, SECOND):
        name = name.replace(f"{which}{_NAMED}", which)
    return f"base_model.model.{name}"
