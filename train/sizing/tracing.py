"""What a step keeps in memory, by running the shipped model on tensors without data.

torch's FakeTensorMode computes shapes only, MemTracker counts the storages alive: the operations
are those of the processor, whose attention keeps what flash attention keeps. Index arrays of a pack
stay real; whatever a forward pass asked of a device would raise here.

Blocks of a part are alike, so each phase of a step grows by the same bytes with each of them: two
and three blocks are traced, the rest is the line through them (a test traces whole models too).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from train.config import PARTS, Config, Parts
from train.data.collate import Pack
from train.data.tower_plan import Group, TowerPlan
from train.engine.recompute import checkpoint_parts
from train.engine.trained import prepare
from train.model.config import SlowFastConfig
from train.model.encoding import encode
from train.model.inputs import pack_inputs
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.vision import OryxVisionConfig, OryxVisionTower

MODEL = SlowFastForConditionalGeneration
"""The class that is traced: the one that a run builds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Bytes beside weights and their gradients in one forward and backward pass: `inputs`, the
    pack's own tensors, and per phase of the step the most that are held, these among them."""

    inputs: int
    phases: Mapping[str, int]

    @property
    def peak(self) -> int:
        return max(self.phases.values())


def trace_step(config: Config, wanted: SlowFastConfig, pack: Pack) -> Step:
    """A step of the model that `wanted` describes, its parts trained as the config says."""
    depths = (wanted.vision_config.num_hidden_layers, wanted.text_config.num_hidden_layers)
    # a model this shallow is traced as it is, in less time than its three copies
    if max(depths) <= 3:
        return trace_whole(config, wanted, pack)
    traced = {
        pair: trace_whole(config, _of_depth(wanted, *pair), pack)
        for pair in ((2, 2), (3, 2), (2, 3))
    }
    # bytes of each phase are linear in either depth: two points give the line
    two = traced[2, 2]
    deeper = [traced[3, 2], traced[2, 3]]
    phases = {
        name: size
        + sum((d - 2) * (t.phases[name] - size) for d, t in zip(depths, deeper, strict=True))
        for name, size in two.phases.items()
    }
    return Step(inputs=two.inputs, phases=phases)


def trace_whole(config: Config, wanted: SlowFastConfig, pack: Pack) -> Step:
    """The same with every block: minutes at full depth."""
    inputs = pack_inputs(pack)
    with FakeTensorMode() as mode:
        model = MODEL(wanted)
        # frozen, cast and checkpointed by the functions that a run calls
        prepare(_without_adapters(config), model)
        checkpoint_parts(model, [name for name in PARTS if getattr(config.parts, name).checkpoint])
        given: dict[str, Any] = {name: without_data(mode, value) for name, value in inputs.items()}
        # the model reads the grids on the host
        given["grids"] = inputs["grids"]
        tracker = Tracker()
        tracker.track_external(model)
        _mark_phases(model, tracker)
        with tracker:
            model(**given).loss.backward()
    # inputs were there before the tracker was: it has not counted them
    size = sum(leaf.nbytes for leaf in _tensors(given.values()))
    return Step(inputs=size, phases={name: held + size for name, held in tracker.peaks.items()})


def _without_adapters(config: Config) -> Config:
    """Parts that are trained whole in the place of those with adapters: they keep as much, and
    their own weights' gradients are not counted here."""
    whole = {name: replace(getattr(config.parts, name), adapter=None) for name in PARTS}
    return replace(config, parts=Parts(**whole))


def kept_by_tower(
    pack: Pack, *, train: bool, again: bool, vision: OryxVisionConfig | None = None
) -> int:
    """Bytes that a tower in bf16 (the published one) keeps of a pack for the backward pass, beside
    its features; `again`: its blocks are checkpointed."""
    wanted = vision or OryxVisionConfig()
    if wanted.num_hidden_layers <= 3:
        return _kept(pack, wanted, train=train, again=again)
    # as in `trace_step`: each further block keeps as much as the third one
    two, three = (_kept(pack, _tower_of(wanted, n), train=train, again=again) for n in (2, 3))
    return two + (wanted.num_hidden_layers - 2) * (three - two)


def _kept(pack: Pack, vision: OryxVisionConfig, *, train: bool, again: bool) -> int:
    inputs = pack_inputs(pack)
    with FakeTensorMode() as mode:
        model = _Encoder(vision)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
            parameter.requires_grad_(train)
        checkpoint_parts(model, ["tower"] if again else [])
        given = [without_data(mode, inputs[name]) for name in ("patches", "tower")]
        tracker = Tracker()
        tracker.track_external(model, *_tensors(given))
        with tracker:
            before = tracker.beside_weights()
            features: Tensor = model(*given)
            # what is alive now and was not before is kept for the backward pass, or is the result
            held = tracker.beside_weights()
    return held - before - features.nbytes


class _Encoder(nn.Module):
    """A tower alone, called as a model calls it."""

    def __init__(self, vision: OryxVisionConfig) -> None:
        super().__init__()
        self.vision_tower = OryxVisionTower(vision)

    def forward(self, patches: Tensor, plan: TowerPlan[Tensor]) -> Tensor:
        return encode(self.vision_tower, patches, patches[:0], plan, again=False).features


class Tracker(MemTracker):
    """The most that is alive beside weights and gradients, phase by phase.

    MemTracker asks every parameter for its gradient, and a frozen one has none to ask for; its own
    peaks are per module, which costs more than the step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.peaks = "tower, forward", dict[str, int]()

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.peaks.setdefault(phase, self.beside_weights())

    def beside_weights(self) -> int:
        """Of what is alive, on all devices, what is neither weight nor gradient."""
        nbytes = 0
        for kinds in self._curr_mem_snap.values():
            # keys are an enum of torch's for what it knows, and strings for the rest
            held = {str(getattr(kind, "value", kind)): size for kind, size in kinds.items()}
            nbytes += held["Total"] - held["Parameter"] - held["Buffer"] - held["Gradient"]
        return nbytes

    # MemTracker calls this behind every operation: one sum, no copy of its snapshot
    def _update_peak_stats(self, peak_state: Any) -> None:  # noqa: ARG002
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.beside_weights())

    def _track_module_params_and_buffers(
        self, module: nn.Module, install_grad_hooks: bool = True
    ) -> tuple[int, int]:
        for parameter in module.parameters():
            if not parameter.requires_grad:
                # handles that hang on nothing: the tracker takes it for one that has its hooks
                asked = (RemovableHandle(OrderedDict()), RemovableHandle(OrderedDict()))
                self._param_to_grad_hook_handles.setdefault(parameter, asked)
        return super()._track_module_params_and_buffers(module, install_grad_hooks)


def _mark_phases(model: SlowFastForConditionalGeneration, tracker: Tracker) -> None:
    """Tell the tracker where the parts of a step begin: by the calls of modules, and by the first
    gradient that reaches a part's output."""

    def backward_from(made: Tensor, phase: str) -> None:
        if made.requires_grad:
            made.register_hook(lambda _: tracker.enter(phase))

    def into_decoder(_: Any, args: Any, kwargs: dict[str, Any]) -> None:  # noqa: ARG001
        tracker.enter("decoder, forward")
        backward_from(kwargs["inputs_embeds"], "projector, backward")

    def into_head(_: Any, args: Any, made: Any) -> None:  # noqa: ARG001
        # the loss is recomputed chunk by chunk, so both passes of the head are one phase
        tracker.enter("head, forward and backward")
        backward_from(made.last_hidden_state, "decoder, backward")

    def into_projector(_: Any, args: Any) -> None:
        tracker.enter("projector, forward")
        backward_from(args[0], "tower, backward")

    # modules are called in this order; gradients come back in the other
    model.projector.register_forward_pre_hook(into_projector)
    decoder = model.language_model.model
    decoder.register_forward_pre_hook(into_decoder, with_kwargs=True)
    decoder.register_forward_hook(into_head)


def _of_depth(wanted: SlowFastConfig, tower_depth: int, decoder: int) -> SlowFastConfig:
    made = copy.deepcopy(wanted)
    made.vision_config = _tower_of(wanted.vision_config, tower_depth)
    text = made.text_config
    text.num_hidden_layers = decoder
    # a list with a kind for each layer is as long as the decoder is deep
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:decoder]
    return made


def _tower_of(vision: OryxVisionConfig, blocks: int) -> OryxVisionConfig:
    made = copy.deepcopy(vision)
    made.num_hidden_layers = blocks
    return made


def without_data(mode: FakeTensorMode, value: Any) -> Any:
    """Tensors, and tuples of them, as fake ones of the same shapes."""
    if isinstance(value, Tensor):
        return mode.from_tensor(value)
    if isinstance(value, tuple) and not isinstance(value, Group):
        parts = [without_data(mode, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(list(values)) if isinstance(leaf, Tensor)]
