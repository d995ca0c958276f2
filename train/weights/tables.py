"""Which stored tensors each part of a model is made of, and which values its source fixes.

`train.model.parts` says under which names the parts lie in our model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shards.errors import UserError
from train.model.parts import PARTS, part_of
from train.weights.decoders import decoder_shapes
from train.weights.published import (
    DECODER_UNUSED,
    ORYX_HEADS,
    ORYX_LAYERS,
    ORYX_PREFIX,
    ORYX_UNUSED,
    SIGLIP2_PREFIX,
    SIGLIP2_UNUSED,
    Shape,
    Table,
    TowerSizes,
    depth,
    moved,
    oryx_sizes,
    oryx_table,
    same_table,
    siglip2_table,
    stored_shapes,
    tower_shapes,
)
from train.weights.source import HOLDS, ORYX, SIGLIP2, SLOWFAST, TOWER, Source
from train.weights.tensor_files import Stored, misfits

_NOT_VALUES = ("architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path")
"""What a config.json says of its making; anything else in it is a value of the model."""
_SIGLIP2_FIXED = {
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "num_channels": 3,
    "attention_dropout": 0.0,
}
"""What our tower computes whatever the config says, with the defaults of `Siglip2VisionConfig`."""
_SIGLIP2_SIZES = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "num_patches": 256,
    "patch_size": 16,
}
"""The same for what it can follow; published files leave defaults out."""


def check_holds(part: str, source: Source) -> None:
    """Raise UserError where the source has no such part."""
    if part not in HOLDS[source.kind]:
        raise UserError(
            f"parts: {part}: init: {source.where} is a {source.kind}, which holds no {part}; "
            "name a source of one, or `random: SEED`"
        )


def vision_values(source: Source) -> dict[str, Any]:
    """The values of our vision config that the source's tower was made with."""
    if source.kind == SLOWFAST:
        return _values(source.config["vision_config"])
    sizes = _sizes(source)
    # sizes of Oryx-ViT are those of its tensors, the number of heads leaves no trace in them, nor
    # do its switches
    heads = ORYX_HEADS
    switches: dict[str, Any] = {
        "antialias": False,
        "activation": "gelu",
        "final_norm": False,
        "patch_order": "cphpw",
    }
    if source.kind == SIGLIP2:
        # SigLIP 2 differs from Oryx-ViT in these alone (train.model.vision.SIGLIP2, without torch)
        heads = _siglip2(source)["num_attention_heads"]
        switches = {
            "antialias": True,
            "activation": "gelu_tanh",
            "final_norm": True,
            "patch_order": "phpwc",
        }
    return {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": heads,
        "intermediate_size": sizes.mlp,
        "position_grid": sizes.side,
        "patch_size": sizes.patch,
        **switches,
    }


def text_values(source: Source) -> dict[str, Any]:
    """The values of the decoder's config that the source's decoder was made with."""
    return _values(source.config["text_config"] if source.kind == SLOWFAST else source.config)


def part_table(part: str, source: Source) -> Table | None:
    """Our names -> the source's tensors; None where only the built model knows the names."""
    # folders of ours have our prefixes on both sides, published ones on ours alone
    ours = f"{PARTS[part][0]}."
    theirs = ours if source.kind == SLOWFAST else ""
    if part == "decoder":
        shapes = decoder_shapes(text_values(source), str(source.config_file))
        return None if shapes is None else moved(same_table(shapes), ours, theirs)
    # its tensors hang on its name and on the layout: the built model knows them
    if part == "projector":
        return None
    sizes = _sizes(source)
    if source.kind == ORYX:
        return moved(oryx_table(sizes), ours, _in_front(source, ORYX_PREFIX))
    if source.kind == SIGLIP2:
        return moved(siglip2_table(sizes), ours, _in_front(source, SIGLIP2_PREFIX))
    return moved(same_table(tower_shapes(sizes)), ours, theirs)


def built_table(part: str, source: Source, shapes: Mapping[str, Shape]) -> Table:
    """The same for a built model, whose own parameters have these shapes by name."""
    if source.kind in (ORYX, SIGLIP2, TOWER):
        table = part_table(part, source)
        assert table is not None  # towers always have one
        return table
    # `part_table` has no names for these: the built model has
    own = {name: shape for name, shape in shapes.items() if part_of(name) == part}
    if source.kind == SLOWFAST:
        return same_table(own)
    front = f"{PARTS[part][0]}."
    bare = {name.removeprefix(front): shape for name, shape in own.items()}
    return moved(same_table(bare), front)


def stored_of(part: str, source: Source) -> dict[str, Stored]:
    """The stored tensors that this part must account for: all but what is known to be unused."""
    return {name: each for name, each in source.stored.items() if _concerns(part, source, name)}


def check_table(part: str, source: Source, table: Table) -> None:
    """Raise UserError for the first tensor that is missing, too many, or of another shape."""
    wanted = stored_shapes(table)
    found = stored_of(part, source)
    # nothing is taken by a name that nearly fits: every stored tensor is accounted for
    wrong = list(misfits(wanted, found, source.path, str(source.config_file)))
    if wrong:
        more = f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}; fetch it again, or name the folder it belongs to")


def _concerns(part: str, source: Source, name: str) -> bool:
    # a folder of ours holds other parts too, which are none of this one's business
    if source.kind == SLOWFAST:
        return part_of(name) == part
    if source.kind == ORYX:
        return not name.removeprefix(ORYX_PREFIX).startswith(ORYX_UNUSED)
    if source.kind == SIGLIP2:
        return not name.startswith((*SIGLIP2_UNUSED, "head."))
    return source.kind == TOWER or not name.endswith(DECODER_UNUSED)


def _values(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _NOT_VALUES}


def _in_front(source: Source, prefix: str) -> str:
    return prefix if any(name.startswith(prefix) for name in source.stored) else ""


def _sizes(source: Source) -> TowerSizes:
    # ours says the side of the position table, SigLIP 2 the number of its places
    if source.kind == SLOWFAST:
        return _sizes_of(source.config["vision_config"], "position_grid", 1)
    if source.kind == SIGLIP2:
        return _sizes_of(_siglip2(source), "num_patches", 2)
    shapes = {name.removeprefix(ORYX_PREFIX): each.shape for name, each in source.stored.items()}
    try:
        sizes = oryx_sizes(shapes) if source.kind == ORYX else _our_sizes(shapes)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{source.path}: no tensor {error}, which gives the sizes of a tower; fetch it again"
        ) from error
    # a file that lost its last blocks would be a shallower tower, whole in itself
    if sizes.layers != ORYX_LAYERS:
        raise UserError(
            f"{source.path}: {sizes.layers} blocks, the published encoder has {ORYX_LAYERS}; fetch "
            "it again"
        )
    return sizes


def _our_sizes(shapes: Mapping[str, Shape]) -> TowerSizes:
    places, width = shapes["embeddings.position_embedding"]
    return TowerSizes(
        width=width,
        layers=depth(shapes, r"layers\.(\d+)\."),
        mlp=shapes["layers.0.mlp.fc1.weight"][0],
        side=round(places**0.5),
        patch=round((shapes["embeddings.patch_embedding.weight"][1] // 3) ** 0.5),
    )


def _sizes_of(config: Mapping[str, Any], side: str, power: int) -> TowerSizes:
    """The sizes in a config, in which `side` names the table's side to this power."""
    return TowerSizes(
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        mlp=config["intermediate_size"],
        side=round(config[side] ** (1 / power)),
        patch=config["patch_size"],
        final_norm=config.get("final_norm", power == 2),
    )


def _siglip2(source: Source) -> dict[str, Any]:
    """The encoder's values; UserError for one that our tower does not compute with."""
    config = source.config.get("vision_config", source.config)
    # values that leave no trace in a tensor's shape: another one would train wrongly in silence
    for name, ours in _SIGLIP2_FIXED.items():
        if config.get(name, ours) != ours:
            raise UserError(
                f"{source.config_file}: {name}: {config[name]}, the tower computes with {ours}; "
                "name a SigLIP 2 (NaFlex) encoder"
            )
    return {name: config.get(name, default) for name, default in _SIGLIP2_SIZES.items()}
