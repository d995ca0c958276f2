"""Several ranks in one launch, and several runs in it, one after the other.

python -m torch.distributed.run --nproc_per_node 2 -m tests.support.ranks JOBS.json
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests.support.tiny_run import ONE_THREAD, TINY, pool_of
from tests.train.engine import watched
from train.config import Config, Part, Stochastic, Stop, load_config
from train.engine import checkpoint, deepspeed_engine
from train.loop import run
from train.run_keys import Keep

STEPS = 10
SHARED = replace(
    TINY,
    stop=Stop(steps=STEPS),
    global_batch=5,
    save_every=2,
    tower_chunk=40,
    keep=Keep(last=STEPS),
)
_AGAIN = Part(lr=TINY.parts.tower.lr, checkpoint=True)
TOWERS: dict[str, dict[str, Any]] = {
    "tuned": {},
    "frozen": {"parts": replace(TINY.parts, tower=Part(train=False))},
    "stochastic": {
        "stochastic": Stochastic(keep=Fraction(1, 4), seed=1),
        "parts": replace(TINY.parts, tower=_AGAIN, decoder=_AGAIN),
    },
}
"""What becomes of the tower, by name: keys of a config."""


def launch(command: Sequence[str], seconds: float, ranks: int = 2) -> str:
    """Run `python -m COMMAND` on so many ranks of one thread each; what they print."""
    words = f"-m torch.distributed.run --nproc_per_node {ranks} --standalone -m".split()
    done = subprocess.run(
        [sys.executable, *words, *command],
        cwd=Path(__file__).parents[2],
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def keep_until(out: Path, step: int) -> None:
    """Forget every checkpoint after this step, as if the run had been killed there."""
    for note in (out / "checkpoints").glob(f"step-*/{checkpoint.COMMITTED}"):
        if int(note.parent.name.removeprefix("step-")) > step:
            note.unlink()


def of_steps(steps: int, tower: str, chunk: int = 40) -> Config:
    """The shared run with another number of steps and another use of the tower."""
    stop = Stop(steps=steps)
    return replace(SHARED, stop=stop, save_every=steps, tower_chunk=chunk, **TOWERS[tower])


def fetch_all(patch: pytest.MonkeyPatch) -> None:
    """Under ZeRO-3 no parameter stays gathered, as DeepSpeed would have small ones: all of them are
    fetched and let go, in tests as at full size."""
    wanted = deepspeed_engine.deepspeed_config

    def without_threshold(config: Config, parameters: int) -> dict[str, Any]:
        made = wanted(config, parameters)
        made["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return made

    patch.setattr(deepspeed_engine, "deepspeed_config", without_threshold)


def train(number: int, job: dict[str, Any]) -> None:
    """Go on to the last step under one ZeRO stage; keep this job's rows, and what it saved.

    A job may have its own `config`, a file, and steps with `bad` gradients; one with `steps` says
    itself how many, and what becomes of the tower.
    """
    out, manifest = Path(job["out"]), Path(job["manifest"])
    config = load_config(Path(job["config"])) if "config" in job else SHARED
    config = of_steps(job["steps"], job["tower"], job["chunk"]) if "steps" in job else config
    offload = job.get("offload", "none")
    config = replace(config, engine="deepspeed", zero_stage=job["stage"], offload=offload)
    with pytest.MonkeyPatch.context() as patch:
        fetch_all(patch)
        watched.watch(patch)
        watched.plant(patch, set(job.get("bad", ())))
        run(config, manifest, pool_of(manifest), out)
    if os.environ["RANK"] == "0":
        shutil.copy(out / "metrics.jsonl", out / f"metrics-{number}.jsonl")
        keep_until(out, job["keep"])
    dist.barrier()


def main() -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=25))
    for place, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        train(job.get("number", place), job)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
