"""Folders of a Qwen2.5, an Oryx-ViT and a SigLIP 2: names, shapes and config keys as published,
widths of a few."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Siglip2Config, Siglip2Model

from train.weights.decoders import decoder_shapes
from train.weights.published import TowerSizes, oryx_table, stored_shapes

QWEN: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 320,
}
"""config.json of Qwen/Qwen2.5-1.5B-Instruct, key by key; sizes and rows are a test's."""
TOWER = TowerSizes(width=32, layers=27, mlp=119, side=128, patch=16)
"""Oryx-ViT, narrower: 27 blocks, 16 heads (of 2), a table of 128 x 128, MLP int(32 * 3.7362)."""


def drawn(
    shapes: Mapping[str, tuple[int, ...]], seed: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Random tensors: norms about 1, matrices wide enough to matter."""
    draw = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=draw) * (0.1 if len(shape) == 1 else 0.15)
        made[name] = (value + ("norm" in name and name.endswith("weight"))).to(dtype)
    return made


def qwen_folder(
    folder: Path, tokenizer: bytes, *, shards: int = 2, seed: int = 0, **changes: object
) -> Path:
    """A decoder as published: bf16, its shards and their index (one file without an index)."""
    config = QWEN | changes
    shapes = decoder_shapes(config, "made")
    assert shapes is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer.json").write_bytes(tokenizer)
    save_sharded(folder, drawn(shapes, seed, torch.bfloat16), shards)
    return folder


def save_sharded(folder: Path, tensors: Mapping[str, Tensor], shards: int) -> None:
    """The tensors as transformers saves them: in order, over so many files."""
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
        return
    names, places = list(tensors), {}
    for number in range(shards):
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def oryx_weights(seed: int = 1, sizes: TowerSizes = TOWER) -> dict[str, Tensor]:
    """The 327 tensors of oryx_vit.pth."""
    return drawn(stored_shapes(oryx_table(sizes)), seed, torch.float32)


def oryx_file(path: Path, seed: int = 1, sizes: TowerSizes = TOWER, **more: Tensor) -> Path:
    """oryx_vit.pth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(oryx_weights(seed, sizes) | more, path)
    return path


def siglip2_folder(folder: Path, seed: int = 2, **vision: object) -> Path:
    """A whole SigLIP 2 (NaFlex) as published: vision, text, scale and bias in one file."""
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 50}
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_patches": 36}
    heads = {"num_attention_heads": 4}
    vision_config = sizes | heads | vision
    torch.manual_seed(seed)
    model = Siglip2Model(Siglip2Config(text_config=text | heads, vision_config=vision_config))
    folder.mkdir(parents=True, exist_ok=True)
    published = {"architectures": ["Siglip2Model"], "model_type": "siglip2"}
    published |= {"text_config": text | heads, "vision_config": vision_config}
    (folder / "config.json").write_text(json.dumps(published))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    save_file(drawn(shapes, seed, torch.float32), folder / "model.safetensors")
    return folder
