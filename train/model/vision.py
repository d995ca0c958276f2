"""The vision tower at native resolution, packed; attention stays inside each image or frame.

Oryx-ViT (arXiv 2409.12961): pre-norm blocks, erf GELU, fused qkv, no class token, no final norm.
The square position table is resized to each grid by plain bilinear interpolation (no antialias) in
fp32. The encoder of SigLIP 2 NaFlex (arXiv 2502.14786) is the same with four switches of the config
(`SIGLIP2`). Frames with equally many patches run as one batch, so that thousands of small frames
cost one SDPA call per block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, pad, scaled_dot_product_attention
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from train.data.tower_plan import Group, frame_groups

NORM_EPS = 1e-6


CPHPW, PHPWC = "cphpw", "phpwc"
SIGLIP2: dict[str, Any] = {
    "antialias": True,
    "activation": "gelu_tanh",
    "final_norm": True,
    "patch_order": PHPWC,
}
"""What makes the tower the encoder of transformers' `Siglip2VisionModel`."""


class OryxVisionConfig(PreTrainedConfig):
    """Sizes of the tower; `position_grid` is the side of the square position table.

    Switches: `antialias` of the resized table; `activation` "gelu" (erf) or "gelu_tanh";
    `final_norm` after the last block; `patch_order` of the patch embedding's columns, "cphpw" or
    "phpwc" (patches are always given as cphpw).
    """

    model_type = "oryx_vit"
    base_config_key = "vision_config"

    hidden_size: int = 1152
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    intermediate_size: int = 4304
    position_grid: int = 128
    patch_size: int = 16
    antialias: bool = False
    activation: str = "gelu"
    final_norm: bool = False
    patch_order: str = CPHPW


def patchify(images: Sequence[Tensor], patch_size: int = 16) -> tuple[Tensor, Tensor]:
    """Normalised images [3, H, W] -> patches float32 [P, 3 * p * p] in (c, ph, pw) order and
    grids int64 [N, 2]; sides are zero-padded right and bottom to the patch size."""
    patches = [torch.empty(0, 3 * patch_size**2)]
    grids = []
    for image in images:
        height, width = image.shape[1:]
        # -n % p: what is missing up to the next multiple of p
        image = pad(image, (0, -width % patch_size, 0, -height % patch_size))
        cells = image.unfold(1, patch_size, patch_size).unfold(2, patch_size, patch_size)
        grids.append(cells.shape[1:3])
        patches.append(cells.permute(1, 2, 0, 3, 4).reshape(-1, 3 * patch_size**2).float())
    return torch.cat(patches), torch.tensor(grids, dtype=torch.int64).reshape(-1, 2)


def normalised(patches: Tensor, like: Tensor) -> Tensor:
    """Patches [P, 3 * p * p] of 0..255 in (ph, pw, c) order, as packs hold them -> what the tower
    takes: x / 127.5 - 1 in (c, ph, pw) order, on the device and in the dtype of `like`."""
    # moved as bytes, a quarter of floats; weights that lie on a disk are on no device yet
    device = patches.device if like.is_meta else like.device
    channels = patches.to(device).unflatten(1, (-1, 3)).transpose(1, 2)
    return channels.flatten(1).to(like.dtype) / 127.5 - 1


class Attention(nn.Module):
    """Multi-head self-attention inside runs of equally long frames."""

    def __init__(self, config: OryxVisionConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        """x [P, C]; runs: (frames, patches per frame), in order."""
        # one product for q, k and v of all frames, whatever their sizes (NaViT, arXiv 2307.06304)
        parts = self.qkv(x).split([frames * length for frames, length in runs])
        out = [self._attend(p, *run) for p, run in zip(parts, runs, strict=True)]
        return self.proj(torch.cat(out) if len(out) > 1 else out[0])

    def _attend(self, qkv: Tensor, frames: int, length: int) -> Tensor:
        size = qkv.shape[1] // (3 * self.heads)
        # [3, F, H, L, d]: frames are the batch, so attention cannot leave one
        q, k, v = qkv.view(frames, length, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        out = scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)


class Mlp(nn.Module):
    def __init__(self, config: OryxVisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.approximate = {"gelu": "none", "gelu_tanh": "tanh"}[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x), approximate=self.approximate))


class Block(GradientCheckpointingLayer):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: OryxVisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        x = x + self.attn(self.norm1(x), runs)
        return x + self.mlp(self.norm2(x))


class Embeddings(nn.Module):
    """A linear map of each patch, plus the position table resized to the frame's grid."""

    def __init__(self, config: OryxVisionConfig) -> None:
        super().__init__()
        self.side, self.patch_size = config.position_grid, config.patch_size
        self.antialias, self.patch_order = config.antialias, config.patch_order
        self.patch_embedding = nn.Linear(3 * config.patch_size**2, config.hidden_size)
        self.position_embedding = nn.Parameter(torch.zeros(self.side**2, config.hidden_size))

    def forward(self, patches: Tensor, groups: Sequence[Group]) -> Tensor:
        if self.patch_order == PHPWC:
            # the columns of SigLIP 2's map: channels last within a pixel
            patches = patches.unflatten(1, (3, self.patch_size**2)).transpose(1, 2).flatten(1)
        x = self.patch_embedding(patches)
        parts = x.split([group.frames * group.height * group.width for group in groups])
        # the table is resized once per grid, and added to all frames of it
        placed = [
            part.view(frames, height * width, x.shape[1]) + self.positions(height, width)
            for part, (frames, height, width) in zip(parts, groups, strict=True)
        ]
        return torch.cat([part.flatten(0, 1) for part in placed])

    def positions(self, height: int, width: int) -> Tensor:
        """The table at this grid, [height * width, C], in the table's dtype."""
        if (height, width) == (self.side, self.side):
            return self.position_embedding
        # in fp32 whatever the table's type: interpolated in bf16, positions are 0.2 % off
        resized = interpolate(
            self.position_embedding.float().T.reshape(1, -1, self.side, self.side),
            size=(height, width),
            mode="bilinear",
            align_corners=False,
            antialias=self.antialias,
        )
        return resized[0].flatten(1).T.to(self.position_embedding.dtype)


class OryxVisionTower(nn.Module):
    """Patches and grids in, the last block's residual stream out (normalised with `final_norm`)."""

    def __init__(self, config: OryxVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = None
        if config.final_norm:
            self.norm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)

    def forward(self, patches: Tensor, frames: Tensor | Sequence[Group]) -> Tensor:
        """patches [P, 3 * p * p] of frames with these grids int64 [N, 2], on the CPU -> [P, C].

        Groups in the place of grids say that frames of one grid already stand together. P = 0 and
        N = 0 run the same layers. ValueError where the two disagree.
        """
        if isinstance(frames, Tensor):
            return self._sorted(patches, frames)
        # a rank without pictures runs the same layers on no rows: collectives stay in step
        groups = frames or [Group(0, 1, 1)]
        promised = sum(group.frames * group.height * group.width for group in groups)
        if promised != len(patches):
            raise ValueError(f"the grids promise {promised} patches, {len(patches)} were given")
        x = self.embeddings(patches.to(self.embeddings.position_embedding.dtype), groups)
        runs = [(group.frames, group.height * group.width) for group in groups]
        for layer in self.layers:
            x = layer(x, runs)
        return x if self.norm is None else self.norm(x)

    def _sorted(self, patches: Tensor, grids: Tensor) -> Tensor:
        groups, order, _ = frame_groups(grids.cpu().numpy())
        if len(order) != len(patches):
            raise ValueError(f"the grids promise {len(order)} patches, {len(patches)} were given")
        # into the order of the groups, and back behind the last block
        moved = torch.from_numpy(order).to(patches.device)
        x = self.forward(patches[moved], groups)
        return torch.empty_like(x).index_copy(0, moved, x)
