"""Memory: ranks under ZeRO-3 never hold more of a start model than a file and their share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mixtures.manifest.files import load_manifest
from tests.support.published.made_weights import qwen_folder
from tests.support.tiny_run import ONE_THREAD

RANKS = 4
SLACK = 0.3 * 2**30
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "vocab_size": 16_384,
}
"""A quarter of a billion parameters: 1 GiB in fp32, half of it on disk."""


def launched(tmp_path: Path, built: Path, decoder: Path, how: str) -> list[dict[str, Any]]:
    out = tmp_path / how
    out.mkdir()
    job = {"manifest": str(built), "decoder": str(decoder), "out": str(out), "how": how}
    (out / "job.json").write_text(json.dumps(job))
    words = f"-m torch.distributed.run --nproc_per_node {RANKS} --standalone -m".split()
    done = subprocess.run(
        [sys.executable, *words, "tests.support.published.placed", str(out / "job.json")],
        cwd=Path(__file__).parents[3],
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_no_rank_holds_more_than_a_file_and_its_share(built: Path, tmp_path: Path) -> None:
    tokenizer = load_manifest(built).tokenizer
    decoder = qwen_folder(tmp_path / "large", tokenizer, shards=8, **LARGE)
    files = sorted(decoder.glob("*.safetensors"))
    largest = max(path.stat().st_size for path in files)
    whole = 2 * sum(path.stat().st_size for path in files)  # stored in half the bytes of fp32
    allowed = largest + whole / RANKS + SLACK
    table = load_file(files[0])["model.embed_tokens.weight"]
    for told in launched(tmp_path, built, decoder, "parts"):
        assert told["excess"] <= allowed
        assert told["shares"] <= 1.05 * whole / RANKS
        assert told["rows"] == table[:4, :4].float().flatten().tolist()
    # the control: what this test is about would be seen
    assert min(told["excess"] for told in launched(tmp_path, built, decoder, "whole")) > allowed
