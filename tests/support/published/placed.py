"""Ranks under ZeRO-3 that train the tiny model, then make a large one, and say what that took.

python -m torch.distributed.run --nproc_per_node 4 -m tests.support.published.placed JOB.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, PreTrainedModel

from mixtures.manifest.files import load_manifest
from tests.support.tiny_run import TINY, pool_of
from train.config import Config, Part, Parts, Schedule, Stop, TextSize
from train.data.render import Rules
from train.engine.deepspeed_engine import deepspeed_config, import_deepspeed
from train.loop import run
from train.model_folder import build_model

SHARDED = replace(
    TINY,
    engine="deepspeed",
    zero_stage=3,
    stop=Stop(steps=1),
    schedule=Schedule(warmup=1),
    global_batch=4,
)


def peak() -> int:
    """The most bytes of memory that this process has held so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def by_parts(config: Config, rules: Rules) -> PreTrainedModel:
    """As a run makes it."""
    return build_model(config, rules)


def whole_first(config: Config, rules: Rules) -> PreTrainedModel:
    """The control: every rank makes the whole model, then lets go of the others' shares."""
    folder = config.parts.decoder.init
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sharding = deepspeed_config(config, 1)
    import_deepspeed().zero.Init(module=model, config_dict_or_path=sharding)
    return model


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    manifest_path, out = Path(job["manifest"]), Path(job["out"])
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    manifest = load_manifest(manifest_path)
    run(SHARDED, manifest_path, pool_of(manifest_path), out / "tiny")
    before = peak()
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    parts = Parts(decoder=Part(init=job["decoder"]))
    config = replace(SHARDED, parts=parts, text=TextSize())
    make = {"parts": by_parts, "whole": whole_first}[job["how"]]
    model = make(config, rules)
    told = {"excess": peak() - before, "shares": share(model), "rows": rows(model)}
    (out / f"rank-{dist.get_rank()}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


def share(model: PreTrainedModel) -> int:
    """Bytes of parameters that this rank keeps."""
    return sum(p.ds_tensor.nbytes for p in model.parameters())  # type: ignore[attr-defined]


def rows(model: PreTrainedModel) -> list[float]:
    """The first numbers of the table of word vectors, gathered from the ranks."""
    table = model.get_input_embeddings().weight
    with import_deepspeed().zero.GatheredParameters([table]):
        return table[:4, :4].flatten().tolist()


if __name__ == "__main__":
    main()
