"""What a command line names is looked for before torch is imported: a mistake costs a second."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import Mistakes, UserError
from shards.store import Store
from train.watched.trackers import check_trackers

if TYPE_CHECKING:
    from train.config import Config
    from train.evaluation.copies import Copy


def check_files(paths: Sequence[Path]) -> None:
    """UserError has a line for each that is no file."""
    mistakes = Mistakes()
    for path in paths:
        with mistakes.noted():
            if not path.is_file():
                raise UserError(f"{path}: no such file; correct the path")
    mistakes.tell()


def check_tasks(paths: Sequence[Path]) -> None:
    """UserError has a line for each that is no task file, or names a medium that is not there."""
    from train.evaluation.tasks import read_tasks

    mistakes = Mistakes()
    for path in paths:
        with mistakes.noted():
            check_files([path])
            read_tasks(path)
    mistakes.tell()


def a_model(folder: Path) -> None:
    """UserError unless it is a model folder: of a run or `assemble` (they write data.json last), or
    saved by transformers with its processor."""
    from train.weights.folder_json import DESCRIPTION, read_description, read_model_config

    by_transformers = (folder / "processor_config.json").is_file()
    if not by_transformers or (folder / DESCRIPTION).is_file():
        read_description(folder)
    read_model_config(folder)


def a_scorer(folder: Path | None) -> None:
    """UserError unless it is a model folder of transformers, or none is asked for."""
    if folder is not None and not (folder / "config.json").is_file():
        raise UserError(
            f"--relevance {folder}: not a model folder of transformers (no config.json); name one"
        )


def a_new_folder(out: Path) -> None:
    """UserError where it is there already, or cannot be written."""
    if out.exists():
        raise UserError(f"{out}: is there already; give another --out, or remove it")
    Store(out).check_writable()


def a_file_to_write(out: Path) -> None:
    """UserError where a folder lies there, or nothing can be written."""
    if out.is_dir():
        raise UserError(f"{out}: a folder; name a file in it")
    Store(out.parent).check_writable()


def a_checkpoint(folder: Path) -> None:
    """UserError unless it is a whole checkpoint."""
    from train.engine.checkpoint import read

    if not (folder / "COMMITTED.json").is_file():
        raise UserError(
            f"{folder}: no checkpoint (no COMMITTED.json); name a folder step-N of a run, or give "
            "--like for a folder that transformers saved"
        )
    read(folder)


def check_branch(branch: Path, out: Path) -> None:
    """UserError unless a run in `out` goes on from this checkpoint, or did when it began."""
    from train.engine.checkpoint import check_same_branch, latest, read

    committed = latest(out / "checkpoints")
    # what has checkpoints of its own needs that of the other run no more
    if committed is None:
        read(branch)
    else:
        check_same_branch(committed, branch)


def check_parts(addresses: Mapping[str, str]) -> None:
    """UserError has a line for each part whose address holds no weights; nothing is fetched."""
    from train.config import Part, Parts
    from train.weights.hub_folder import check_address
    from train.weights.start import open_sources

    mistakes = Mistakes()
    for name, where in addresses.items():
        with mistakes.noted():
            if where.startswith("hf://"):
                check_address(where)
            else:
                open_sources(Parts(**{name: Part(init=where)}), [name])
    mistakes.tell()


def check_recorded(recorded: Path, pool: str, manifest: Path | None, begin: int) -> None:
    """UserError has a line for each thing that a run cannot be made again with."""
    from train.engine.checkpoint import at
    from train.run_folder.record import manifest_of, read_record

    record = read_record(recorded)
    folder = recorded if recorded.is_dir() else recorded.parent
    mistakes = Mistakes()
    with mistakes.noted():
        check_data(pool)
    with mistakes.noted():
        manifest_of(record, manifest)
    with mistakes.noted():
        if begin:
            at(folder / "checkpoints", begin)
    mistakes.tell()


def check_data(url: str) -> None:
    """UserError unless a pool or shards lie there."""
    if not any(Store(url).exists(name) for name in ("profile.json", "receipt.json")):
        raise UserError(
            f"{url}: neither a pool (profile.json) nor shards (receipt.json); check --data"
        )


# Command by command ---------------------------------------------------------------


def check_assembly(arguments: argparse.Namespace) -> None:
    """UserError has a line for each thing that no model can be assembled of."""
    from mixtures.recipe.load import load_recipe

    mistakes = Mistakes()
    with mistakes.noted():
        check_files([arguments.recipe])
        load_recipe(arguments.recipe, arguments.allowed)
    with mistakes.noted():
        check_parts({"decoder": arguments.decoder, "tower": arguments.tower})
    with mistakes.noted():
        a_new_folder(arguments.out)
    mistakes.tell()


def default_data(manifest: Path) -> str:
    """The shards beside a manifest if there are any, else the pool beside its folder."""
    # shards are this manifest's own, in draw order; a pool serves many manifests, so it comes
    # second
    for mark in ("shards/receipt.json", "pool/profile.json", "../pool/profile.json"):
        if (manifest.parent / mark).is_file():
            return str((manifest.parent / mark).parent)
    raise UserError(f"{manifest}: neither shards/ nor pool/ nor ../pool beside it; give --data")


def check_inputs(arguments: argparse.Namespace) -> Config:
    """The config of a run; UserError for what does not fit, before torch is imported."""
    from mixtures.manifest.files import load_manifest
    from train.config import check_layout
    from train.engine.checkpoint import steps
    from train.schedule import check_length, check_schedule, total_steps
    from train.weights.start import check_start

    where = str(arguments.manifest)
    config = manifest = None
    mistakes = Mistakes()
    # each check runs whatever the others find, so that one start tells all mistakes
    with mistakes.noted():
        config = chosen(arguments)
    with mistakes.noted():
        manifest = load_manifest(where)
        check_data(arguments.data or default_data(arguments.manifest))
    with mistakes.noted():
        Store(arguments.out).check_writable()
    with mistakes.noted():
        check_trackers(arguments.track)
    with mistakes.noted():
        if arguments.branch is not None:
            check_branch(arguments.branch, arguments.out)
    if config is None or manifest is None:
        mistakes.tell()
    assert config is not None and manifest is not None
    with mistakes.noted():
        check_layout(config, manifest.layout, where)
    with mistakes.noted():
        total = total_steps(config.stop, manifest, config.global_batch)
        check_schedule(config.schedule, total)
        check_length(manifest, total, config.global_batch, where)
    # what was trained needs nothing but its checkpoint
    if arguments.branch is None and not steps(arguments.out / "checkpoints"):
        with mistakes.noted():
            check_start(config, manifest, where)
    mistakes.tell()
    return config


def chosen(arguments: argparse.Namespace) -> Config:
    """The config file, with the start weights that the command line names."""
    from train.config import all_from, from_places, load_config

    config = load_config(arguments.config)
    if arguments.init_from:
        config = replace(config, parts=all_from(config.parts, arguments.init_from))
    # after --init-from: the place of one part wins over that of all
    return replace(config, parts=from_places(config.parts, by_part(arguments.init)))


def by_part(words: list[str]) -> dict[str, str]:
    """PART=FOLDER of the command line; UserError for another part."""
    from train.config import PARTS

    # a word without "=" has an empty folder, and is refused like a part that does not exist
    found = dict(word.partition("=")[::2] for word in words)
    for part, where in found.items():
        if part not in PARTS or not where:
            raise UserError(f"--init {part}={where}: write PART=FOLDER, PART one of {PARTS}")
    return found


def check_export(arguments: argparse.Namespace) -> None:
    """UserError has a line for each thing of which, or to which, nothing is exported."""
    if arguments.adapter and arguments.like:
        raise UserError("export: --adapter is of a checkpoint; leave out --like")
    if arguments.init and (arguments.adapter or arguments.like):
        raise UserError(
            "export: --init names the frozen parts of a checkpoint's model; leave it out"
        )
    mistakes = Mistakes()
    with mistakes.noted():
        # with --like the source is what transformers saved, which has no commit mark to look for
        if arguments.like is None:
            a_checkpoint(arguments.source)
        else:
            a_model(arguments.like)
            check_files([arguments.source / "config.json"])
    with mistakes.noted():
        a_new_folder(arguments.out)
    mistakes.tell()


def asked_for(arguments: argparse.Namespace) -> list[Copy]:
    """The copies of benchmarks of an evaluation; UserError for everything that it cannot read or
    write, before torch is imported."""
    from train.evaluation.beside.against import scores_in
    from train.evaluation.copies import copies

    benchmarks: list[Copy] = []
    mistakes = Mistakes()
    with mistakes.noted():
        a_model(arguments.model)
    with mistakes.noted():
        a_scorer(arguments.relevance)
    with mistakes.noted():
        check_tasks(arguments.tasks)
    with mistakes.noted():
        benchmarks = copies(arguments.benchmark)
    with mistakes.noted():
        if arguments.against:
            scores_in(arguments.against)
    with mistakes.noted():
        a_file_to_write(arguments.out)
    mistakes.tell()
    return benchmarks


def check_chat(arguments: argparse.Namespace) -> None:
    """UserError has a line for each file that a conversation lacks."""
    mistakes = Mistakes()
    with mistakes.noted():
        a_model(arguments.model)
    with mistakes.noted():
        check_files([*arguments.video, *arguments.image])
    with mistakes.noted():
        a_scorer(arguments.relevance)
    mistakes.tell()


def check_records(folders: Sequence[Path]) -> None:
    """UserError has a line for each that is no complete run."""
    from train.run_folder.record import read_record

    mistakes = Mistakes()
    for folder in folders:
        with mistakes.noted():
            read_record(folder)
    mistakes.tell()
