"""What of the model is trained, at which rate and decay, and in which precision: all engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from train.adapter import is_adapters, own_name
from train.config import PARTS, Config
from train.engine.interface import gathered, whole_shape
from train.model.parts import part_of
from train.model.pretrained import SlowFastPreTrainedModel
from train.model.weight_digest import WeightDigest

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)


def prepare(config: Config, model: SlowFastPreTrainedModel) -> None:
    """Freeze what is not trained, and cast weights to the config's precision."""
    # frozen parameters have no gradient and no optimizer state
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(config, name))
    model.cast_weights(torch.bfloat16 if config.precision == "bf16" else torch.float32)


def is_trained(config: Config, name: str) -> bool:
    """Whether the parameter of this name is: a part's adapter if it has one, else all of it."""
    part = getattr(config.parts, part_of(name))
    return part.train and (part.adapter is None or is_adapters(name))


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of what is trained, of tied weights the first name only."""
    named = model.named_parameters(remove_duplicate=True)
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def check_trained(config: Config, model: nn.Module) -> None:
    """Raise RuntimeError unless just the config's parts are trained, in the model as wrapped."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != is_trained(config, name):
            found = "trained" if parameter.requires_grad else "not trained"
            raise RuntimeError(f"{name} is {found}, which the config does not say")


def make_optimizer(
    config: Config, model: SlowFastPreTrainedModel, tensors: Mapping[str, Tensor]
) -> torch.optim.AdamW:
    """AdamW over `tensors`, one for each trained parameter: at most two groups for each part.

    `initial_lr` of a group is its part's highest rate; `part` names it.
    """
    groups = []
    for part in PARTS:
        # two groups a part at most: with decay, and without
        part_config = getattr(config.parts, part)
        names = [name for name in tensors if part_of(name) == part]
        for decay in (True, False):
            members = [tensors[name] for name in names if decays(model, name) == decay]
            if members:
                group: dict[str, Any] = {"params": members, "part": part, "lr": part_config.lr}
                group |= {
                    "initial_lr": part_config.lr,
                    "weight_decay": part_config.weight_decay * decay,
                }
                groups.append(group)
    # fused: one kernel for all parameters of a group
    return torch.optim.AdamW(groups, betas=config.optimizer.betas, fused=True)


def decays(model: SlowFastPreTrainedModel, name: str) -> bool:
    """Whether weight decay applies: to matrices of products and to the table of word vectors.

    Norms, biases, learned vectors, position tables and queries never decay, whatever their shape.
    """
    # decided by the module that holds the weight, not by its name alone
    at, _, leaf = name.rpartition(".")
    module = model.get_submodule(at)
    if leaf == "bias" or "norm" in type(module).__name__.lower():
        return False
    if isinstance(module, _MATRICES) or module is model.get_input_embeddings():
        return True
    # gates and experts of a decoder keep their matrices as bare parameters
    parameter = model.get_parameter(name)
    shape = whole_shape(parameter)
    is_table = isinstance(module, nn.Embedding)
    return part_of(name) == "decoder" and len(shape) > 1 and not is_table


def frozen_parts(config: Config, model: nn.Module) -> dict[str, dict[str, str]]:
    """Of each part whose own weights are not trained the source, and the sha256 of their names,
    shapes and bytes."""
    digests = {p: WeightDigest() for p in PARTS if not getattr(config.parts, p).trains_own}
    for name, weight in model.named_parameters(remove_duplicate=True):
        if part_of(name) in digests and not is_adapters(name):
            with gathered(weight) as whole:
                digests[part_of(name)].add(own_name(name), whole)
    return {
        part: {"source": str(getattr(config.parts, part).init), "sha256": digest.hexdigest()}
        for part, digest in digests.items()
    }
