"""Weights that are drawn anew, module by module: the same for a seed on any engine and device.

Each module's draw is keyed by the seed and the module's name, in fp32 on the CPU, so that neither
the order of modules nor how many processes there are changes it, and one module is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shards.ids import short_hash
from train.model.parts import part_of
from train.model.resamplers import PerceiverLayer, QFormerLayer
from train.weights.published import Shape

_DRAWN_WHOLE = (PerceiverLayer, QFormerLayer)
"""Modules whose own rule looks at what their children drew."""


def drawn(
    model: PreTrainedModel, part: str, seed: int, shapes: Mapping[str, Shape]
) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every parameter of the part, whose whole shapes are given by name."""
    within = ""
    for name, module in model.named_modules():
        if not name or part_of(name) != part or (within and name.startswith(within)):
            continue
        # a module that draws by its own rule is drawn with its children, and they are passed over
        members = [module]
        if is_whole := isinstance(module, _DRAWN_WHOLE):
            within = f"{name}."
            members = list(module.modules())
        named = {own: f"{name}.{own}" for own, _ in module.named_parameters(recurse=is_whole)}
        # NaN marks what no rule has drawn
        fresh = {
            own: torch.full(shapes[full], torch.nan)
            for own, full in named.items()
            if full in shapes
        }
        if fresh:
            with _in_place(module, fresh):
                # 60 bits of the digest of (seed, name): torch takes seeds below 2**63
                _draw(_owner(model, name), members, int(short_hash([seed, name])[:15], 16))
        for own, value in fresh.items():
            if value.isnan().any():
                raise RuntimeError(f"{named[own]}: no rule says how it is drawn")
            yield named[own], value


def _draw(owner: PreTrainedModel, modules: list[nn.Module], seed: int) -> None:
    # the caller's random state stays as it is
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        # children first, as transformers does
        for module in reversed(modules):
            owner._init_weights(module)


def _owner(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """The innermost model of transformers around a module: its rule draws the module."""
    owner = model
    at: nn.Module = model
    for step in name.split("."):
        at = at.get_submodule(step)
        owner = at if isinstance(at, PreTrainedModel) else owner
    return owner


@contextmanager
def _in_place(module: nn.Module, fresh: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with these tensors as its parameters, whatever it holds otherwise."""
    places = [(module.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in fresh]
    before = [at._parameters[leaf] for at, leaf in places]
    for (at, leaf), value in zip(places, fresh.values(), strict=True):
        at._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    try:
        yield
    finally:
        for (at, leaf), parameter in zip(places, before, strict=True):
            at._parameters[leaf] = parameter
