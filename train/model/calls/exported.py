"""torch.export of the model's parts, for what some inputs show: plan and places are constants.

The plan of the tower's calls and the places of the rows are made from values, on the host, before
anything is traced; a program holds them, so it is for pictures and films of these grids. Texts of
one prompt may be longer or shorter behind what it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from shards.errors import UserError
from train.data.tower_plan import TowerPlan
from train.model.encoding import encode
from train.model.inputs import VISUAL_INPUTS, VisualArguments, VisualInputs, padded_visual


class Exported(NamedTuple):
    """tower: uint8 patches [P, 768] -> features [P, C]; projector: features, seconds [N] -> rows
    [V, D]; decoder: ids [B, T], rows, mask [B, T] -> logits [B, T, vocabulary]."""

    tower: ExportedProgram
    projector: ExportedProgram
    decoder: ExportedProgram


class _Tower(nn.Module):
    def __init__(self, model: Any, plan: TowerPlan[Tensor]) -> None:
        super().__init__()
        self.tower, self.plan = model.vision_tower, plan

    def forward(self, patches: Tensor) -> Tensor:
        return encode(self.tower, patches, patches[:0], self.plan, again=False).features


class _Projector(nn.Module):
    def __init__(self, model: Any, visual: VisualInputs) -> None:
        super().__init__()
        self.projector, self.visual = model.projector, visual

    def forward(self, features: Tensor, seconds: Tensor) -> Tensor:
        rows: Tensor = self.projector(
            features, self.visual.tower.frames, self.visual.patch_index, seconds
        )
        return rows


class _Decoder(nn.Module):
    def __init__(self, model: Any, visual: VisualInputs) -> None:
        super().__init__()
        self.decoder, self.position = model.language_model, visual.patch_index.position

    def forward(self, ids: Tensor, visual_rows: Tensor, mask: Tensor) -> Tensor:
        text = self.decoder.get_input_embeddings()(ids).flatten(0, 1)
        rows = text.index_copy(0, self.position, visual_rows.to(text.dtype)).unflatten(0, ids.shape)
        logits: Tensor = self.decoder(
            inputs_embeds=rows, attention_mask=mask, use_cache=False
        ).logits
        return logits


@torch.no_grad()
def export_parts(model: Any, inputs: Mapping[str, Any]) -> Exported:
    """The three programs for the processor's `inputs`; `logits = decoder(ids, projector(tower(
    patches), seconds), mask)`. UserError where nothing is shown, or a memory reads frames."""
    # its reader attends over as many frames as there are: not a shape that a program can fix
    if model.memory is not None:
        raise UserError("export_parts: a model with `memory_tokens`; export one without")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    shown = VisualArguments(*(inputs.get(name) for name in VISUAL_INPUTS))
    visual = padded_visual(ids, shown, model.config.visual_token_ids[2:])
    if visual is None or not len(visual.patches):
        raise UserError("export_parts: these inputs show nothing; export the language model alone")
    # part by part, each traced with what the one before it makes
    tower = export(_Tower(model, visual.tower), (visual.patches,))
    features = tower.module()(visual.patches)
    projector = export(_Projector(model, visual), (features, visual.seconds))
    rows = projector.module()(features, visual.seconds)
    # places are counted over the flattened rows: those of one prompt stay where they are
    length = {1: Dim.AUTO} if len(ids) == 1 else {}
    shapes: tuple[dict[int, Any], ...] = (length, {}, length)
    decoder = export(_Decoder(model, visual), (ids, rows, mask), dynamic_shapes=shapes)
    return Exported(tower, projector, decoder)
