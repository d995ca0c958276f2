"""The vision tower against a plain reference written from the published facts of Oryx-ViT."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate, layer_norm, linear, pad
from transformers import Siglip2VisionConfig, Siglip2VisionModel

from shards.errors import UserError
from tests.support.tiny_model import patches_of
from train.model.vision import SIGLIP2, OryxVisionConfig, OryxVisionTower, normalised, patchify
from train.weights.convert import PREFIX, from_oryx, from_siglip2, read_published, to_oryx

ROOT = Path(__file__).parents[3]

WIDTH, HEADS, SIDE, DEPTH, MLP = 24, 3, 6, 2, 89


def config(**changes: object) -> OryxVisionConfig:
    sizes = {
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_hidden_layers": DEPTH,
        "intermediate_size": MLP,
        "position_grid": SIDE,
        "patch_size": 16,
    }
    return OryxVisionConfig(**(sizes | changes))


def published_weights(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the published names and shapes."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw) * 0.3

    weights = {
        "pos_embed": random(1, SIDE * SIDE, WIDTH),
        "patch_embed.proj.weight": random(WIDTH, 3, 16, 16) * 0.2,
        "patch_embed.proj.bias": random(WIDTH),
    }
    shapes = {
        "norm1": (WIDTH,),
        "attn.qkv": (3 * WIDTH, WIDTH),
        "attn.proj": (WIDTH, WIDTH),
        "norm2": (WIDTH,),
        "mlp.fc1": (MLP, WIDTH),
        "mlp.fc2": (WIDTH, MLP),
    }
    for layer in range(DEPTH):
        for name, shape in shapes.items():
            weights[f"blocks.{layer}.{name}.weight"] = random(*shape)
            weights[f"blocks.{layer}.{name}.bias"] = random(shape[0])
    return weights


def reference(w: dict[str, Tensor], image: Tensor) -> Tensor:
    """One image [3, H, W] through the published architecture, written without our code."""
    image = pad(image, (0, -image.shape[2] % 16, 0, -image.shape[1] % 16))
    x = torch.conv2d(
        image[None], w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16
    )
    table = w["pos_embed"].reshape(1, SIDE, SIDE, WIDTH).permute(0, 3, 1, 2)
    if x.shape[2:] != table.shape[2:]:
        table = interpolate(table, x.shape[2:], mode="bilinear", align_corners=False)
    x = (x + table)[0].flatten(1).T
    for layer in range(DEPTH):
        block = {
            name.split(".", 2)[2]: value
            for name, value in w.items()
            if name.startswith(f"blocks.{layer}.")
        }
        x = x + reference_attention(block, norm(block, "norm1", x))
        h = linear(norm(block, "norm2", x), block["mlp.fc1.weight"], block["mlp.fc1.bias"])
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        x = x + linear(h, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    return x


def norm(block: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return layer_norm(x, (WIDTH,), block[f"{name}.weight"], block[f"{name}.bias"], 1e-6)


def reference_attention(block: dict[str, Tensor], x: Tensor) -> Tensor:
    qkv = linear(x, block["attn.qkv.weight"], block["attn.qkv.bias"])
    q, k, v = (part.reshape(len(x), HEADS, -1).transpose(0, 1) for part in qkv.chunk(3, dim=1))
    scores = (q @ k.transpose(1, 2)) * (WIDTH // HEADS) ** -0.5
    out = (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(x), WIDTH)
    return linear(out, block["attn.proj.weight"], block["attn.proj.bias"])


def tower(seed: int = 0) -> OryxVisionTower:
    built = OryxVisionTower(config())
    built.load_state_dict(from_oryx(published_weights(seed)), strict=True)
    return built.eval()


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(7)
    return [torch.rand(3, *size, generator=draw) * 2 - 1 for size in sizes]


SIZES = ((32, 64), (50, 33), (96, 96), (64, 32), (32, 64), (1, 400), (16, 16))


@torch.no_grad()
def test_packed_mixed_and_odd_sizes_equal_the_reference() -> None:
    shown = images(*SIZES)
    out = tower()(*patchify(shown))
    expected = torch.cat([reference(published_weights(), image) for image in shown])
    assert expected.abs().max() > 5
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_changing_one_frame_leaves_the_others_bit_equal() -> None:
    shown = images((32, 32), (32, 32), (32, 64), (32, 32))
    model = tower()
    before = model(*patchify(shown))
    shown[1] = -shown[1]
    after = model(*patchify(shown))
    assert torch.equal(before[:4], after[:4])
    assert torch.equal(before[8:], after[8:])
    assert not torch.equal(before[4:8], after[4:8])


@torch.no_grad()
def test_frames_alone_equal_frames_together() -> None:
    shown, model = images(*SIZES), tower()
    together = model(*patchify(shown))
    alone = torch.cat([model(*patchify([image])) for image in shown])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_odd_sides_are_zero_padded_right_and_bottom() -> None:
    (image,) = images((50, 33))
    patches, grids = patchify([image])
    assert grids.tolist() == [[4, 3]]
    explicit = torch.zeros(3, 64, 48)
    explicit[:, :50, :33] = image
    assert torch.equal(patches, patchify([explicit])[0])
    conv = explicit.unfold(1, 16, 16).unfold(2, 16, 16)[:, 2, 1].reshape(-1)
    assert torch.equal(patches[2 * 3 + 1], conv)


def test_what_a_pack_holds_is_sorted_by_channel_and_normalised_like_images() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 32, 3), np.uint8)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    packed = torch.from_numpy(patches_of(frames)).view(-1, 768)
    for dtype in (torch.float32, torch.bfloat16):
        wanted = patchify(list(pixels))[0]
        torch.testing.assert_close(
            normalised(packed, torch.empty(0, dtype=dtype)).float(), wanted, rtol=0, atol=0.01
        )
    assert torch.equal(normalised(packed, torch.empty(0)), wanted)


def test_the_table_is_unchanged_at_its_own_grid_and_plain_bilinear_elsewhere() -> None:
    embeddings = tower().embeddings
    table = embeddings.position_embedding
    assert embeddings.positions(SIDE, SIDE) is table
    square = table.T.reshape(1, WIDTH, SIDE, SIDE)
    smaller = interpolate(square, (2, 4), mode="bilinear", align_corners=False)
    blurred = interpolate(square, (2, 4), mode="bilinear", align_corners=False, antialias=True)
    ours = embeddings.positions(2, 4)
    assert torch.equal(ours, smaller[0].flatten(1).T)
    assert not torch.allclose(ours, blurred[0].flatten(1).T, atol=1e-2)


def test_the_table_is_resized_in_fp32_under_bf16_weights() -> None:
    embeddings = tower().bfloat16().embeddings
    square = embeddings.position_embedding.float().T.reshape(1, WIDTH, SIDE, SIDE)
    wanted = interpolate(square, (4, 3), mode="bilinear", align_corners=False)
    assert torch.equal(embeddings.positions(4, 3), wanted[0].flatten(1).T.bfloat16())


@torch.no_grad()
def test_the_output_is_the_unnormalised_residual_stream() -> None:
    out = tower()(*patchify(images((64, 64))))
    normalised = layer_norm(out, (WIDTH,))
    assert (out - normalised).abs().max() > 1


def test_zero_patches_run_every_layer_and_give_zero_gradients() -> None:
    model = tower()
    out = model(torch.zeros(0, 768), torch.zeros(0, 2, dtype=torch.int64))
    assert out.shape == (0, WIDTH)
    out.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_patches_that_the_grids_do_not_promise_are_refused() -> None:
    with pytest.raises(ValueError, match="promise 6 patches, 5 were given"):
        tower()(torch.zeros(5, 768), torch.tensor([[2, 3]]))


def test_published_weights_survive_the_round_trip() -> None:
    published = published_weights()
    back = to_oryx(from_oryx(published))
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], published[name]) for name in published)


def test_missing_and_unknown_keys_are_named() -> None:
    published = published_weights()
    del published["blocks.1.norm2.bias"]
    published["norm.weight"] = torch.ones(WIDTH)
    with pytest.raises(ValueError, match=r"missing \['blocks.1.norm2.bias'\], unknown \['norm.we"):
        from_oryx(published)
    with pytest.raises(ValueError, match="missing"):
        from_oryx({})


def test_the_real_tower_has_the_published_names_and_size() -> None:
    with torch.device("meta"):
        real = OryxVisionTower(OryxVisionConfig())
    published = to_oryx(real.state_dict())
    assert len(published) == 327
    assert published["pos_embed"].shape == (1, 16384, 1152)
    assert published["patch_embed.proj.weight"].shape == (1152, 3, 16, 16)
    assert published["blocks.26.attn.qkv.weight"].shape == (3456, 1152)
    assert round(sum(p.numel() for p in real.parameters()) / 1e6, 1) == 431.2


def test_every_image_is_within_1e_4_of_the_reference_where_features_reach_20() -> None:
    """Per image, in double precision, so that the reference's own rounding does not count."""
    published = published_weights(3)
    for layer in range(DEPTH):
        published[f"blocks.{layer}.mlp.fc2.weight"] *= 3
    model = OryxVisionTower(config())
    model.load_state_dict(from_oryx(published), strict=True)
    shown = images((32, 64), (50, 33), (96, 96), (17, 5), (160, 96), (1, 400), (50, 33))
    with torch.no_grad():
        patches, grids = patchify(shown)
        parts = model(patches, grids).split(grids.prod(1).tolist())
    exact = {name: tensor.double() for name, tensor in published.items()}
    for image, part in zip(shown, parts, strict=True):
        expected = reference(exact, image.double())
        assert (part - expected).abs().max() <= 1e-4
    assert max(part.abs().max() for part in parts) > 20


@pytest.mark.parametrize("switch", [{"activation": "gelu_tanh"}, {"antialias": True}])
@torch.no_grad()
def test_the_switches_of_the_other_encoder_are_told_apart(switch: dict[str, object]) -> None:
    other = OryxVisionTower(config(**switch))
    other.load_state_dict(from_oryx(published_weights()))
    shown = patchify(images((32, 64)))
    assert (other(*shown) - tower()(*shown)).abs().max() > 1e-3


def test_no_image_at_all_has_no_patches() -> None:
    patches, grids = patchify([])
    assert patches.shape == (0, 768) and grids.shape == (0, 2)
    assert tower()(patches, grids).shape == (0, WIDTH)


@pytest.mark.parametrize("side", [3, 6])
@torch.no_grad()
def test_siglip2_equals_the_model_of_transformers(side: int) -> None:
    torch.manual_seed(side)
    theirs = Siglip2VisionModel(
        Siglip2VisionConfig(
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            intermediate_size=MLP,
            num_patches=side * side,
        )
    ).eval()
    for parameter in theirs.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.3)
    ours = OryxVisionTower(config(position_grid=side, **SIGLIP2))
    ours.load_state_dict(from_siglip2(theirs.state_dict()), strict=True)
    patches, grids = patchify(images(*SIZES))
    counts = grids.prod(1).tolist()
    in_their_order = patches.unflatten(1, (3, 256)).transpose(1, 2).flatten(1)
    padded = torch.nn.utils.rnn.pad_sequence(in_their_order.split(counts), batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.tensor(counts)[:, None]
    out = theirs(pixel_values=padded, pixel_attention_mask=mask.long(), spatial_shapes=grids)
    expected = out.last_hidden_state[mask]
    assert expected.abs().max() > 0.5
    assert (ours(patches, grids) - expected).abs().max() <= 1e-5


def test_siglip2_keys_that_are_missing_or_unknown_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown \['text.weight'\]"):
        from_siglip2({"text.weight": torch.ones(1)})


def published_file(path: Path, layers: int, prefix: str = "", **more: object) -> Path:
    weights = published_weights()
    stem = {name: t for name, t in weights.items() if not name.startswith("blocks.")}
    block = {n[len("blocks.0.") :]: t for n, t in weights.items() if n.startswith("blocks.0.")}
    deep = {f"blocks.{i}.{name}": tensor for i in range(layers) for name, tensor in block.items()}
    whole = {f"{prefix}{name}": tensor for name, tensor in (stem | deep).items()}
    torch.save(whole | more, path)
    return path


def convert(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.weights.convert", str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_published_file_becomes_safetensors(tmp_path: Path) -> None:
    more = {f"{PREFIX}norm.weight": torch.ones(WIDTH)}
    source = published_file(tmp_path / "oryx_vit.pth", 27, PREFIX, **more)
    done = convert(source, tmp_path / "vision.safetensors")
    assert done.returncode == 0 and "327 tensors" in done.stdout, done.stderr
    model = OryxVisionTower(config(num_hidden_layers=27))
    model.load_state_dict(load_file(tmp_path / "vision.safetensors"), strict=True)


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path("ran").touch, ())


@pytest.mark.parametrize(
    ("layers", "more", "said"),
    [
        (2, {}, "2 blocks, the published encoder has 27"),
        (27, {"head.weight": torch.ones(1)}, r"unknown ['head.weight']"),
        (27, {"code": Runs()}, "not a file of plain tensors"),
        (27, {"step": 3}, "not a dictionary of tensors"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_refused(
    tmp_path: Path, layers: int, more: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        read_published(published_file(tmp_path / "oryx_vit.pth", layers, **more))
    assert said in str(raised.value) and not Path("ran").exists()
