"""OUT/run.json: what a run was and which losses it had, so that it can be made and compared again.

It is written when the last step is saved and the model exported: a run that has it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from mixtures.manifest.files import LOCK
from shards.envelope import Envelope
from shards.errors import UserError
from shards.ids import sha256_file
from shards.store import Store
from train import ranks
from train.config import Config
from train.engine.checkpoint import Checkpoint
from train.json_files import METRICS
from train.run_folder.settings import deciding, differences, resolved

RUN = "run.json"
ENVELOPE = Envelope(
    schema="slowfast-mix/run/1",
    if_damaged="remove it and run the same command again",
    if_outdated="remove it and run the same command again",
)
# the first ones show where two runs part, the later ones how far; a long run's record stays small
FIRST, EVERY = 100, 100
"""Steps whose losses are kept: so many first ones, then every so many."""
PACKAGES = ("torch", "transformers", "deepspeed", "numpy", "safetensors")
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_ROOT = Path(__file__).resolve().parents[2]
# the pipeline is not among them: a run reads what it made, by digests, and runs none of it
_ROOMS = ("shards", "mixtures", "train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A complete run of `step` steps.

    `lock` is the sha256 of the recipe.lock.json beside its manifest, or "" without one; `config`
    the config as resolved, `deciding` its values that decide; `made_with` names code, versions,
    device and launch; `losses` has, by step, `float.hex` of the losses of the FIRST steps and of
    each EVERY-th one that was taken.
    """

    step: int
    manifest_id: str
    manifest: str
    lock: str
    config: str
    deciding: dict[str, str]
    bases: dict[str, str]
    branch: str
    made_with: dict[str, str]
    losses: dict[str, str]


def record_of(out: Path, config: Config, manifest: Path, last: Checkpoint) -> Record:
    """What this process, its `last` checkpoint and the log in `out` say of a complete run."""
    # the addresses of the sources are in the lock alone: with it the data can be made again
    lock = manifest.parent / LOCK
    return Record(
        step=last.step,
        manifest_id=last.manifest_id,
        manifest=str(manifest.absolute()),
        lock=sha256_file(lock) if lock.is_file() else "",
        config=resolved(config),
        deciding=deciding(config),
        bases=last.bases,
        branch=last.branch,
        made_with=made_with(config),
        losses=dict(_losses(out / METRICS)),
    )


def made_with(config: Config) -> dict[str, str]:
    """Code, versions, device and launch of this process: what may change last digits."""
    cuda = torch.cuda.is_available()
    return {
        "code": code_digest(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {_cpu()}",
        # the number of threads decides how sums are split, and so their last digits
        "threads": str(torch.get_num_threads()),
        "processes": str(ranks.world_size()),
        "engine": config.engine,
        "zero_stage": str(config.zero_stage) if config.engine == "deepspeed" else "none",
        "precision": config.precision,
        "micro_batch": str(config.micro_batch),
        # a frame that is encoded by itself may have other last digits than among others
        **({"feature_cache": "used"} if config.feature_cache else {}),
    }


def code_digest() -> str:
    """Over the names and bytes of every module that a run may use."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((_ROOT / room).rglob("*.py")):
            # the path counts too: a module that moved may be imported by another one
            digest.update(f"{path.relative_to(_ROOT)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def write_record(out: Path, record: Record) -> None:
    """Say that the run in `out` is complete."""
    # the last file of a run, in one durable step: there or not there
    Store(out).put(RUN, ENVELOPE.seal(asdict(record)))


def read_record(path: Path) -> Record:
    """A run.json, or that of a run's folder; UserError if there is none."""
    path = path / RUN if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: not there; a run has it when it is complete")
    return Record(**ENVELOPE.unseal(path.read_bytes(), str(path)))


def compared(left: Record, right: Record) -> Iterator[str]:
    """A line for each named thing in which two runs differ; of digests it has the beginning."""
    plain = ("manifest_id", "lock", "branch", "step")
    # manifest, lock and branch decide the data; what decides the computing follows, key by key
    one, two = ({name: str(getattr(run, name)) for name in plain} for run in (left, right))
    saved, now = (each | run.deciding | run.made_with for each, run in ((one, left), (two, right)))
    yield from (_DIGEST.sub(r"\1", line) for line in differences(saved, now))


def verdict(
    left: Mapping[str, str], right: Mapping[str, str], precision: str, begin: int = 0
) -> str:
    """Whether two runs had the same losses, at the steps that both have, one of which began behind
    step `begin`; a second line says where they part."""
    steps = sorted(map(int, left.keys() & right.keys()))
    if not steps:
        return "no step in common"
    # `float.hex` keeps every bit
    pairs = {n: (float.fromhex(left[str(n)]), float.fromhex(right[str(n)])) for n in steps}
    # relative, and safe where both losses are zero
    far = {n: abs(a - b) / max(abs(a), abs(b), 1e-30) for n, (a, b) in pairs.items()}
    first = next((n for n in steps if far[n]), None)
    of = f"({len(steps)} losses, steps {steps[0]} to {steps[-1]})"
    if first is None:
        return f"bit-equal {of}"
    is_near = all(far[n] <= rounding(precision, n - begin) for n in steps)
    worst = max(steps, key=lambda n: far[n])
    a, b = pairs[worst]
    return (
        f"{'equal to rounding' if is_near else 'different'} {of}\n"
        f"from step {first} on, most at step {worst}: {a:.7g} and {b:.7g}, {far[worst]:.1e} apart"
    )


def rounding(precision: str, steps: int) -> float:
    """How far two losses may be apart, relatively, that began to differ by the order of additions
    so many steps ago.

    Training multiplies what rounding begins: two launches of the demo in fp32 are 4e-9 apart at
    step 2 and 6e-4 at step 95, a factor of 1.14 a step.
    """
    # more steps than reach MOST would only overflow
    return min(ROUNDING[precision] * GROWTH ** min(steps, 100), MOST)


ROUNDING = {"fp32": 1e-6, "bf16": 1e-3}
"""Losses of one step over the same weights differ by less, relatively, by precision."""
GROWTH, MOST = 1.14, 0.01
"""By how much that grows each step, and to what at most."""


def _losses(path: Path) -> Iterator[tuple[str, str]]:
    with path.open() as lines:
        for row in map(json.loads, lines):
            # a step that was skipped changed nothing, so its loss says nothing of the run
            is_kept = row["step"] <= FIRST or row["step"] % EVERY == 0
            if is_kept and row["objection"] is None:
                yield str(row["step"]), float(row["loss"]).hex()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _cpu() -> str:
    """The processor's name, where the system says it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} of {names[0] if names else platform.machine()}"
