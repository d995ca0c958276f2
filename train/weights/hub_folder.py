"""`hf://ORGANISATION/NAME@COMMIT` -> a local folder of that model repository's weights and config.

The bytes come through `pipeline.fetch`, bounded and checked, and lie in its cache once per machine.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants

from pipeline.fetch import digest_cache, hub, local_files
from shards.errors import UserError
from shards.ids import short_hash

_REPOSITORY = re.compile(r"hf://[\w.-]+/[\w.-]+@([0-9a-f]{40})")
_READ = re.compile(r"[^/]+\.safetensors(\.index\.json)?|(config|tokenizer)\.json|oryx_vit\.pth")


def check_address(address: str) -> None:
    """UserError unless it names a repository and one commit of it."""
    if not _REPOSITORY.fullmatch(address):
        raise UserError(
            f"init: {address}: not of the form hf://ORGANISATION/NAME@COMMIT with all 40 digits of "
            "the commit; a branch moves, so it is not taken"
        )


def fetched_folder(address: str) -> Path:
    """The folder that holds the repository's weights, fetched unless it is there already."""
    check_address(address)
    folder = digest_cache.cache() / "models" / short_hash(address)
    if _whole(folder):
        return folder
    with _online():
        # pickles other than the published tower, and other formats of the same weights, are not
        # fetched
        paths = [each for each in hub.pin(f"{address}/*") if _READ.fullmatch(hub.parse(each).path)]
        found = {hub.parse(each).path: local_files.local(each).path for each in paths}
    return _linked(folder, found)


def fetched_file(address: str, key: str) -> Path:
    """The one file at a path or an address that `key` names, fetched unless it is there already."""
    with _online():
        return local_files.path_of(address, key)


def _linked(folder: Path, paths: dict[str, Path]) -> Path:
    """A folder of links, made whole in one step; ranks of one node may do so at once."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, path in paths.items():
        (temporary / name).symlink_to(path)
    try:
        temporary.rename(folder)
    except OSError:
        if _whole(folder):  # another rank was faster: its links are the same
            shutil.rmtree(temporary)
        else:
            # links into a cache that has since been emptied
            shutil.rmtree(folder)
            temporary.rename(folder)
    return folder


def _whole(folder: Path) -> bool:
    return folder.is_dir() and all(link.exists() for link in folder.iterdir())


@contextmanager
def _online() -> Iterator[None]:
    """Whoever names an address wants it fetched; otherwise nothing here asks the hub."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
