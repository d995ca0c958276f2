"""A run's folder as it is opened: claimed, seen by all ranks, swept, and compared with the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from mixtures.manifest.files import MANIFEST
from mixtures.manifest.manifest import Manifest
from shards.errors import UserError
from shards.ids import canonical_json
from shards.store import Store
from train import ranks
from train.config import Config
from train.engine import checkpoint
from train.engine.checkpoint import Checkpoint
from train.run_folder.owner import Claim, renewing, say_taken_over
from train.run_folder.settings import CONFIG, by_place, deciding, differences, resolved
from train.run_folder.shared_folder import check_shared
from train.run_folder.signals import STOPPED

CHECKPOINTS = "checkpoints"
_MOST = 10
"""So many differences between two manifests are named."""


@contextmanager
def opened(out: Path) -> Iterator[Claim]:
    """Inside, this launch owns `out`; UserError, on every rank, where it cannot."""
    claim = Claim(out)
    say_taken_over(out, ranks.by_first(claim.take))
    if ranks.rank() != 0:
        check_shared(out)
        yield claim
        return
    with renewing(claim):
        check_shared(out)
        yield claim


def last_checkpoint(out: Path, manifest: Manifest, config: Config) -> Checkpoint | None:
    """What this run goes on from, each rank having verified its share; None if it is new.

    UserError names every key that differs from what the checkpoint was saved with.
    """
    committed = ranks.by_first(partial(_look, out, manifest, config))
    if committed is not None:
        share = partial(checkpoint.verify, committed, ranks.rank(), ranks.world_size())
        # together the ranks read each byte of the checkpoint once
        ranks.by_each(share)
    return committed


def branched_from(branch: Path, manifest: Manifest, config: Config, total: int) -> Checkpoint:
    """The checkpoint of another run, from which a run of `total` steps goes on, verified.

    UserError where the model is another one, or would read media or tokens in another way.
    """
    found = ranks.by_first(partial(_fitting, branch, manifest, config, total))
    ranks.by_each(partial(checkpoint.verify, found, ranks.rank(), ranks.world_size()))
    return found


def _fitting(branch: Path, manifest: Manifest, config: Config, total: int) -> Checkpoint:
    committed = checkpoint.read(branch)
    about = json.loads((branch / checkpoint.MODEL / "data.json").read_bytes())
    text = json.loads((branch / checkpoint.MODEL / "config.json").read_bytes())["text_config"]
    saved = dict(by_place({"layout": about["layout"], "tokenizer": about["tokenizer_sha256"]}))
    layout = {"layout": asdict(manifest.layout), "tokenizer": manifest.codec.tokenizer_sha256}
    now = dict(by_place(layout)) | _of_the_model(deciding(config))
    lines = list(differences(saved | _of_the_model(committed.config), now))
    # positions beyond the trained length were never seen by the saved decoder
    longest = max(int(table["tokens"].max()) for table in manifest.tables if len(table))
    if longest > (most := text["max_position_embeddings"]):
        lines.append(f"a sample of the manifest has {longest} tokens, the model {most} positions")
    if total <= committed.step:
        lines.append(f"step {committed.step} of the checkpoint, the run would end after {total}")
    if lines:
        raise UserError(*(f"--branch {branch}: {line}" for line in lines))
    return committed


def _of_the_model(values: Mapping[str, str]) -> dict[str, str]:
    """Of the values of a config, those that the saved weights are for."""
    kinds = ("vision", "text", "projector", "pool_before_projection")
    return {
        place: value
        for place, value in values.items()
        if place.partition(":")[0] in kinds or place.endswith(": train") or ": adapter: " in place
    }


def _look(out: Path, manifest: Manifest, config: Config) -> Checkpoint | None:
    root = out / CHECKPOINTS
    # what a save that was killed has left
    checkpoint.sweep(root)
    committed = checkpoint.latest(root)
    if committed is not None:
        _check_same_manifest(committed, out, manifest)
        _check_same_config(committed, config)
    store = Store(out)
    store.put(MANIFEST, canonical_json(manifest.contents.to_json()))
    store.put(CONFIG, resolved(config).encode())
    store.remove(STOPPED)
    return committed


def _check_same_config(committed: Checkpoint, config: Config) -> None:
    lines = list(differences(committed.config, deciding(config)))
    if lines:
        raise UserError(
            *(f"{committed.folder}: {line}" for line in lines),
            f"{committed.folder}: go on with the values of before, or give another --out",
        )


def _check_same_manifest(committed: Checkpoint, out: Path, manifest: Manifest) -> None:
    if committed.manifest_id == manifest.manifest_id:
        return
    path = out / MANIFEST
    saved = (
        json.loads(path.read_bytes()) if path.is_file() else {"manifest_id": committed.manifest_id}
    )
    left, right = (dict(by_place(tree)) for tree in (saved, manifest.contents.to_json()))
    lines = list(differences(left, right))
    # what a person wrote first: digests follow from it
    lines.sort(key=lambda line: bool(re.search("[0-9a-f]{32}", line)))
    raise UserError(
        *(f"{committed.folder}: manifest: {line}" for line in lines[:_MOST]),
        f"{committed.folder}: go on over the manifest of before, or give another --out",
    )
