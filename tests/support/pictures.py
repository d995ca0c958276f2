"""Pictures and films that are known to be copies, or known not to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import simplejpeg
from sklearn.datasets import load_digits, load_sample_images

from pipeline.dedup.fingerprints import SIDE, Floats, fingerprint
from pipeline.media.decoded import Decoded

Pixels = np.ndarray
SCANS = load_digits().images
PHOTOGRAPH = np.ascontiguousarray(load_sample_images().images[0][:384, :576])


def clip(frames: list[np.ndarray], kind: str = "video") -> Decoded:
    height, width = frames[0].shape[:2]
    return Decoded(
        kind=kind,
        frames=tuple(simplejpeg.encode_jpeg(np.ascontiguousarray(f), 90) for f in frames),
        pts=tuple(range(0, 500 * len(frames), 500)),
        time_base=(1, 1000),
        duration=(len(frames), 2),
        width=width,
        height=height,
        rotation=0,
        is_vfr=False,
        source_fps=(2, 1),
        colour="bt709",
        codec="h264",
        container="mov",
        source_size=(width, height),
    )


TIMES = 20


def pan(seed: int, contrast: float) -> Floats:
    """Pictures of a window that moves over a smooth ground of little contrast."""
    draw = np.random.default_rng(seed)
    small = draw.normal(0, 1, (2, 16, 16)) @ np.kron(np.eye(16), np.ones((1, 6)))
    ground = np.kron(small[0], np.ones((6, 1)))
    for axis in (0, 1):
        rolled = (np.roll(ground, shift, axis) for shift in range(-6, 7))
        ground = sum(rolled, np.zeros_like(ground)) / 13
    ground = 120 + contrast * ground / ground.std()
    steps = (np.linspace(0, 60, TIMES).astype(int), np.linspace(0, 40, TIMES).astype(int))
    return np.stack([ground[y : y + SIDE, x : x + SIDE] for y, x in zip(*steps, strict=True)])


def under(pictures: Floats, box: tuple[slice, slice], luma: float, opacity: float) -> Floats:
    shown = pictures.copy()
    shown[:, *box] = (1 - opacity) * shown[:, *box] + opacity * luma
    return shown


def scene(seed: int, *, board: int | None = None) -> list[Pixels]:
    """Sixteen frames: four scans all the time, and over them one scan at nine random times."""
    draw = np.random.default_rng(seed)
    corners = np.random.default_rng(seed if board is None else board).integers(0, len(SCANS), 4)
    cells = [np.kron(SCANS[c], np.ones((4, 4))) for c in corners]
    still = np.block([[cells[0], cells[1]], [cells[2], cells[3]]])
    ground, events = draw.integers(0, 60, 3), set(draw.permutation(16)[:9].tolist())
    frames = []
    for step in range(16):
        ink = still.copy()
        if step in events:
            y, x = draw.integers(0, 33, 2)
            ink[y : y + 32, x : x + 32] = np.kron(SCANS[draw.integers(len(SCANS))], np.ones((4, 4)))
        frames.append((ground + ink[..., None] / 16 * (255 - ground)).astype(np.uint8))
    return frames


def prints(name: str, frames: list[Pixels]) -> list[dict[str, Any]]:
    return [fingerprint(name, clip(frames))]
