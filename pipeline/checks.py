"""What can be wrong with a build and be seen without reading all data: looked for before any work.

Neither Ray nor ffmpeg is started for it, and every mistake is told at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mixtures.recipe.allowed_paths import allowed_paths, check_here
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import HeldOut, Recipe, Source
from mixtures.selection.exclusions import read_exclusions
from mixtures.tokens.text import TextCodec
from pipeline.fetch import local_files
from pipeline.media.decode import find_tools
from pipeline.sources import JOINED, records
from pipeline.sources.folder_names import folder_names
from pipeline.sources.pin import Pinned, pin
from pipeline.sources.records import MediaRef, Record, RowRefusal
from shards.errors import Mistakes, UserError
from shards.ids import sha256_hex
from shards.outcome import CODES
from shards.pool import Pool
from shards.store import Store

LOOKED_UP = 100
"""Records of a source whose media are looked up by name."""
MOST_FILES = 100_000
"""Files of a media folder that are looked through where no name is found at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A recipe that was checked, its sources and its held-out data with every address pinned."""

    recipe: Recipe
    tokenizer: bytes
    sources: tuple[Pinned, ...]
    held_out: tuple[Pinned, ...]


def checked(
    recipe_path: str,
    out: str,
    pool_url: str,
    allowed: Sequence[str],
    *,
    with_shards: bool,
    writes: bool = True,
    retry: Sequence[str] = (),
) -> Inputs:
    """The inputs of a build; UserError has a line for each mistake that can be seen now.

    Where nothing `writes`, nothing is written to see whether it can be. `retry` are codes to be
    tried again.
    """
    recipe = None
    mistakes = Mistakes()
    with mistakes.noted():
        codes_of_media(retry)
    with mistakes.noted():
        check_here(allowed_paths(allowed))
    with mistakes.noted():
        recipe = load_recipe(Path(recipe_path), allowed)
    with mistakes.noted():
        _check_places(recipe, out, pool_url, with_shards, writes)
    with mistakes.noted():
        find_tools()
    # what a recipe names is known when all of it is read
    if recipe is None:
        mistakes.tell()
    assert recipe is not None
    tokenizer = b""
    with mistakes.noted():
        tokenizer = _tokenizer(recipe)
    with mistakes.noted():
        check_same_tokenizer(recipe, tokenizer, pool_url)
    if recipe.leaks:
        # not at the top: what compares clips takes half a second to import
        from pipeline.stages import match_leaks

        with mistakes.noted():
            match_leaks.index_of(recipe.leaks.index)
    if recipe.exclude:
        with mistakes.noted():
            read_exclusions(Path(recipe.exclude))
    sources = _pinned(recipe, recipe.sources, mistakes)
    held_out = _pinned(recipe, recipe.held_out, mistakes)
    mistakes.tell()
    return Inputs(recipe=recipe, tokenizer=tokenizer, sources=sources, held_out=held_out)


def codes_of_media(named: Sequence[str]) -> frozenset[str]:
    """These codes, of media and addresses, which can be tried again; UserError for any other."""
    known = [code for code in CODES if code.startswith(("MEDIA_", "FETCH_"))]
    wrong = []
    for code in named:
        if code not in known:
            near = ", ".join(difflib.get_close_matches(code.upper(), known, 3)) or "MEDIA_TOO_SLOW"
            wrong.append(f"--retry {code}: no code of media or addresses; is {near} meant?")
    if wrong:
        raise UserError(*wrong)
    return frozenset(named)


def _check_places(
    recipe: Recipe | None, out: str, pool_url: str, with_shards: bool, writes: bool
) -> None:
    """Whether OUT and the pool can be written to, and hold nothing of another kind."""
    mistakes = Mistakes()
    # what cannot be written to is not read either: one line for each place
    with mistakes.noted():
        if writes:
            Store(out).check_writable()
        if not with_shards and Store(out).exists("shards/receipt.json"):
            raise UserError(
                f"{out}/shards: of an earlier build; remove them, or leave out --no-shards"
            )
    with mistakes.noted():
        if writes:
            Store(pool_url).check_writable()
        if recipe is not None and Store(pool_url).exists("profile.json"):
            Pool(pool_url, recipe.profile)
    mistakes.tell()


def _tokenizer(recipe: Recipe) -> bytes:
    where = recipe.text.tokenizer
    data = local_files.path_of(where, f"{recipe.path}: text: tokenizer").read_bytes()
    TextCodec(data, recipe.text.template, where)
    return data


def check_same_tokenizer(recipe: Recipe, tokenizer: bytes, pool_url: str) -> None:
    """UserError where the pool keeps other bytes of this address: a plan could not choose."""
    where = recipe.text.tokenizer
    if not (tokenizer and local_files.is_remote(where) and Store(pool_url).exists("profile.json")):
        return
    kept = [r for r in Pool(pool_url).receipts("tokenizer") if r.parameters["address"] == where]
    if any(receipt.inputs != (sha256_hex(tokenizer),) for receipt in kept):
        raise UserError(
            f"{recipe.path}: text: tokenizer: {where} is not what it was when {pool_url} was made; "
            "fetch the one that is meant, and name its file"
        )


def _pinned(
    recipe: Recipe, published: Sequence[Source | HeldOut], mistakes: Mistakes
) -> tuple[Pinned, ...]:
    pinned_sources = []
    for source in published:
        with mistakes.noted():
            pinned = pin(source, str(recipe.path), recipe.allowed_paths)
            check_first(pinned, str(recipe.path))
            pinned_sources.append(pinned)
    return tuple(pinned_sources)


# The first records -------------------------------------------------------------


def check_first(pinned: Pinned, where: str) -> None:
    """UserError where a source's files are not of its format, or none of its first media is there.

    Only what lies on this machine is looked at; archives are not opened.
    """
    source = pinned.source
    if any(local_files.is_remote(address) for address in pinned.annotations):
        return
    paths = [local_files.resolve(address, where) for address in pinned.annotations]
    # files that make one table are read together, of others the first one tells
    shown = paths if source.format in JOINED else paths[:1]
    items = list(islice(records(source.format, shown, source.columns), LOOKED_UP))
    _check_read(items, pinned, where)
    named = [ref for item in items if isinstance(item, Record) for ref in item.media]
    outside = [ref for ref in named if ref.data is None and not ref.url]
    may_lack_all = isinstance(source, Source) and source.max_refused == 1
    if outside and not pinned.archives and not pinned.loose and not may_lack_all:
        _check_there(outside, pinned, where)


def _check_read(records: Sequence[Record | RowRefusal], pinned: Pinned, where: str) -> None:
    """UserError where a whole file holds no record that is read."""
    refused = [item for item in records if isinstance(item, RowRefusal)]
    if len(pinned.annotations) > 1 and pinned.source.format not in JOINED:
        return  # of several files one may hold nothing: the books will say so
    if refused and len(refused) == len(records) < LOOKED_UP:
        first = refused[0]
        raise UserError(
            f"{where}: {pinned.source.name}: none of the {len(records)} records of "
            f"{pinned.annotations[0]} can be read as {pinned.source.format}: {first.record}: "
            f"{first.code}: {first.detail}; mend them, or choose another `format`"
        )


def _check_there(refs: Sequence[MediaRef], pinned: Pinned, where: str) -> None:
    """UserError where none of these media is in the source's folder."""
    source = pinned.source
    count = f"none of its first {len(refs)} media" if len(refs) > 1 else "its only medium"
    if not source.media:
        raise UserError(
            f"{where}: {source.name}: names media, e.g. {refs[0].name!r}, and says nowhere where "
            "they lie; give it `media`, a folder, or `archives`"
        )
    root = Path(source.media).expanduser()
    names = (name for ref in refs for name in (ref.name, *ref.also))
    if any((root / name).exists() for name in names) or _near(root, refs):
        return
    raise UserError(
        f"{where}: {source.name}: media: {count} is in {source.media}, e.g. {refs[0].name!r}; name "
        "the folder that the names start from"
    )


def _near(root: Path, refs: Sequence[MediaRef]) -> bool:
    """Whether a name leads somewhere from this folder but for case, slashes or Unicode form."""
    try:
        names = folder_names(root, MOST_FILES)
    except UserError:  # too many to look through now: the build will tell
        return True
    return any("" in names.homes(ref) for ref in refs)
