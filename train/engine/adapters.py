"""Adapters in a model, by peft: layers beside those of a part, their first values, and the sum.

language_model.(...).q_proj.weight    becomes    (...).q_proj.base_layer.weight
                                                 (...).q_proj.lora_A.default.weight  [rank, in]
                                                 (...).q_proj.lora_B.default.weight  [out, rank]
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shards.errors import UserError
from shards.ids import short_hash
from train.adapter import FIRST, HEAD, Adapter, is_adapters, leaf_of, pair_of
from train.config import PARTS, Parts
from train.model.parts import PARTS as MODULES
from train.model.parts import part_of


def adapters_of(parts: Parts) -> dict[str, Adapter]:
    """The adapters of a config, by part."""
    named = {part: getattr(parts, part).adapter for part in PARTS}
    return {part: adapter for part, adapter in named.items() if adapter is not None}


def add_adapters(model: PreTrainedModel, parts: Parts) -> None:
    """Put the config's adapters beside the layers that they name, without values yet.

    UserError where peft is missing, or a name is no linear layer's of its part.
    """
    wanted = adapters_of(parts)
    # peft is an optional dependency: without an adapter it is not looked for
    if not wanted:
        return
    named = {p: replace(a, targets=targets_of(model, p, a)) for p, a in wanted.items()}
    rule = lora_config(named, init_lora_weights=False)
    from peft import inject_adapter_in_model

    inject_adapter_in_model(rule, model)


def draw_adapters(model: PreTrainedModel, parts: Parts) -> None:
    """Give every adapter its first values, A by seed and name, B zero: nothing is added yet."""
    seeds = {part: adapter.seed for part, adapter in adapters_of(parts).items()}
    for name, parameter in model.named_parameters():
        if is_adapters(name):
            # in place, into the tensor that the engine holds
            with torch.no_grad():
                parameter.copy_(_first_value(name, parameter, seeds[part_of(name)]))


def adapter_sizes(model: nn.Module, parts: Parts) -> dict[str, int]:
    """How many parameters the adapter of each part would have in this model, 0 without one."""
    sizes = dict.fromkeys(PARTS, 0)
    for part, adapter in adapters_of(parts).items():
        targets = targets_of(model, part, adapter)
        for name, module in model.named_modules():
            # A has rank x in, B out x rank entries
            if isinstance(module, nn.Linear) and part_of(name) == part and leaf_of(name) in targets:
                sizes[part] += adapter.rank * (module.in_features + module.out_features)
    return sizes


def targets_of(model: nn.Module, part: str, adapter: Adapter) -> tuple[str, ...]:
    """The last names of the layers that get an adapter; UserError for one that is no layer's."""
    named = [(name, module) for name, module in model.named_modules() if name and "." in name]
    inside = {name: module for name, module in named if part_of(name) == part}
    # exactly nn.Linear: subclasses, such as quantised ones, are wrapped in another way by peft
    linear = {leaf_of(name) for name, module in inside.items() if type(module) is nn.Linear}
    others = {leaf_of(name) for name, module in inside.items() if type(module) is not nn.Linear}
    # peft finds layers by last name: one that is also something else's cannot be named
    there = tuple(sorted(linear - others - {HEAD}))
    chosen = there if adapter.targets is None else adapter.targets
    for leaf in chosen:
        if leaf not in there:
            raise UserError(
                f"parts: {part}: adapter: targets: no linear layer of the {part} is called "
                f"{leaf}; there are {', '.join(there)}"
            )
    return chosen


def lora_config(adapters: Mapping[str, Adapter], **more: Any) -> Any:
    """All of them as one config of peft; each names its layers. UserError where peft is missing."""
    if find_spec("peft") is None:
        raise UserError("adapter: peft is not installed; pip install 'peft>=0.21'")
    from peft import LoraConfig

    # whole-name patterns, one a part: ranks and scales may differ between parts of one model
    places = {part: _pattern(part, adapter.targets or ()) for part, adapter in adapters.items()}
    return LoraConfig(
        target_modules="|".join(places.values()),
        rank_pattern={place: adapters[part].rank for part, place in places.items()},
        alpha_pattern={place: adapters[part].alpha for part, place in places.items()},
        **more,
    )


def with_adapter(
    name: str, weight: Tensor, adapters: Mapping[str, Tensor], alphas: Mapping[str, float]
) -> Tensor:
    """W + alpha / rank * B A of the weight of this name, in its type; W itself without an adapter.

    `adapters` has A and B by name, `alphas` is by part.
    """
    a, b = (adapters.get(one) for one in pair_of(name))
    if a is None or b is None:
        return weight
    # in fp32, as the two passes of training add up
    added = alphas[part_of(name)] / a.shape[0] * (b.float() @ a.float())
    return (weight.float() + added).to(weight.dtype)


def _first_value(name: str, like: Tensor, seed: int) -> Tensor:
    """A by Kaiming's rule, as peft draws it; B zero."""
    value = torch.zeros(like.shape)
    # keyed by seed and name: neither ranks, other layers nor their order change a draw
    if FIRST in name:
        generator = torch.Generator().manual_seed(int(short_hash([seed, name])[:15], 16))
        nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)
    return value


def _pattern(part: str, leaves: Sequence[str]) -> str:
    """What matches the whole names of these layers of a part, and no others."""
    # peft matches a pattern against whole names: part first, then anything, then the layer
    modules, names = ("|".join(map(re.escape, each)) for each in (MODULES[part], leaves))
    return rf"(?:{modules})\.(?:.*\.)?(?:{names})"
