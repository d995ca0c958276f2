"""A lock becomes the manifest that it was written beside: what the pool lacks is fetched and made.

recipe.lock.json ─► every file as it was? ─► build ─► the same manifest_id?
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixtures.manifest.files import LOCK
from mixtures.recipe.load import load_recipe
from mixtures.recipe.strict_yaml import dump_yaml, load_yaml
from mixtures.recipe.types import HeldOut, Source
from pipeline.fetch import local_files
from pipeline.fetch.digest_cache import Digests
from pipeline.lock import Lock, differing, digest_of, ffmpeg_build, read_lock
from pipeline.sources.pin import pin
from shards.errors import UserError
from shards.store import Store

if TYPE_CHECKING:
    from pipeline.build import Built

RECIPE = "recipe.yaml"


def rebuild(
    path: str,
    pool: str,
    out: str,
    roots: Mapping[str, str],
    address: str | None = None,
    *,
    no_sandbox: bool = False,
    allowed: Sequence[str] = (),
) -> Built:
    """Build what a lock says, its folders found under other `roots`; UserError names the first file
    or source that is not what it was.

    The new roots are `allowed` as well: whoever runs this names them.
    """
    lock = read_lock(Path(path))
    if ffmpeg_build() != lock.ffmpeg:
        sys.stderr.write(
            f"{path}: decoded by {lock.ffmpeg}, here is {ffmpeg_build()}: clips that the pool "
            "lacks may come out otherwise\n"
        )
    recipe = Path(out) / RECIPE
    store = Store(out)
    store.put(RECIPE, lock.recipe.encode())
    store.put(RECIPE, dump_yaml(moved(load_yaml(recipe), roots)).encode())
    allowed = [*allowed, *(str(Path(new).absolute()) for new in roots.values())]
    check_files(lock, recipe, allowed)
    # not before the checks: what builds takes a second to import
    from pipeline.build import build

    built = build(
        str(recipe),
        out,
        pool,
        address,
        no_sandbox=no_sandbox,
        allowed=allowed,
        with_shards=False,
    )
    if built.manifest_id != lock.manifest_id:
        why = list(differing(lock, read_lock(Path(out) / LOCK)))
        raise UserError(
            f"{path}: manifest {lock.manifest_id} became {built.manifest_id}: "
            + ("; ".join(why) or "clips came out otherwise, or other code planned it")
        )
    return built


def moved(tree: Any, roots: Mapping[str, str]) -> Any:
    """A recipe's tree with each OLD at the beginning of a path replaced by its NEW."""
    if isinstance(tree, dict):
        return {key: moved(value, roots) for key, value in tree.items()}
    if isinstance(tree, list):
        return [moved(value, roots) for value in tree]
    for old, new in roots.items():
        if isinstance(tree, str) and f"{tree}/".startswith(f"{old.rstrip('/')}/"):
            return new.rstrip("/") + tree[len(old.rstrip("/")) :]
    return tree


def check_files(lock: Lock, path: Path, allowed: Sequence[str] = ()) -> None:
    """Raise UserError for the first annotation file, or tokenizer, whose bytes are not those of the
    lock: before anything is admitted."""
    try:
        recipe = load_recipe(path, allowed)
        tokenizer = local_files.path_of(recipe.text.tokenizer, f"{path}: text: tokenizer")
    except UserError as error:
        raise UserError(*error.args, "where the lock's folders lie here: --root OLD=NEW") from None
    digests = Digests([str(path), "rebuild"])
    _check("tokenizer", recipe.text.tokenizer, digests.of(tokenizer), lock.tokenizer)
    sources: list[Source | HeldOut] = [*recipe.sources, *recipe.held_out]
    for source, locked in zip(sources, [*lock.sources, *lock.held_out], strict=True):
        there = pin(source, str(path), recipe.allowed_paths).annotations
        if len(there) != len(locked.files):
            raise UserError(
                f"{source.name}: {len(there)} annotation files, {len(locked.files)} when it was "
                "locked; put back what it had"
            )
        for one, (_, digest) in zip(there, locked.files, strict=True):
            _check(source.name, one, digest_of(one, digests), digest)
    digests.save()


def _check(name: str, address: str, digest: str, locked: str) -> None:
    if digest != locked:
        raise UserError(
            f"{name}: {address}: not the bytes that were locked (sha256 {digest[:12]}, then "
            f"{locked[:12]}); put back what it was, or name its folder by --root OLD=NEW"
        )
