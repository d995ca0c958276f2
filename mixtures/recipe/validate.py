"""What a recipe may not say although each of its values is well formed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixtures.recipe.allowed_paths import OPTION
from mixtures.recipe.types import Published, Recipe
from mixtures.tokens.layout_types import View
from shards.errors import UserError
from shards.profile import Profile

REMOTE = ("hf", "https", "s3", "gs")
"""Schemes of the addresses that a recipe may name."""


def check(recipe: Recipe) -> None:
    """Raise UserError with a line for every rule that the recipe breaks."""
    rules = (
        _bad_names,
        _bad_ratios,
        _bad_amounts,
        _bad_places,
        _bad_exclude,
        _bad_join,
        _bad_duplicates,
        _bad_frames,
        _bad_query,
    )
    if broken := [f"{recipe.path}: {line}" for rule in rules for line in rule(recipe)]:
        raise UserError(*broken)


def _bad_places(recipe: Recipe) -> Iterator[str]:
    """Local files lie in the recipe's folder, the current one, or one that was allowed."""
    # by spelling, not by what links lead to: these are the user's own
    folders = (Path(os.path.normpath(recipe.path.parent.absolute())), Path.cwd())
    homes = (*folders, *recipe.allowed_paths)
    for where, address in _places(recipe):
        # an address has a scheme; anything else is a path
        scheme, remote, _ = address.partition("://")
        if remote and scheme not in REMOTE:
            known = ", ".join(f"{scheme}://" for scheme in REMOTE)
            yield (
                f"{where}: {address!r} is no address; give one that starts with {known}, or a path"
            )
        # nothing is opened here: a plan may run where the data are not
        path = Path(os.path.normpath(Path(address).expanduser().absolute()))
        if not remote and not any(path.is_relative_to(home) for home in homes):
            yield (
                f"{where}: {address!r} is outside the recipe's folder and the current one; allow "
                f"its folder with {OPTION} FOLDER, or keep the recipe beside its data"
            )


def _places(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Every path and address of a recipe, and where it stands."""
    yield "text: tokenizer", recipe.text.tokenizer
    if recipe.leaks is not None:
        yield "leaks: index", recipe.leaks.index
    if recipe.exclude is not None:
        yield "exclude", recipe.exclude
    for key, entries in (("sources", recipe.sources), ("held_out", recipe.held_out)):
        for i, entry in enumerate(entries):
            where = f"{key}[{i}] ({entry.name})"
            yield from ((f"{where}: annotations", address) for address in entry.annotations)
            yield from ((f"{where}: archives", archive.at) for archive in entry.archives)
            if entry.media:
                yield f"{where}: media", entry.media


def _bad_exclude(recipe: Recipe) -> Iterator[str]:
    if recipe.exclude is not None and "://" in recipe.exclude:
        yield f"exclude: {recipe.exclude!r} must be a file of this machine; fetch it first"


def _bad_join(recipe: Recipe) -> Iterator[str]:
    rule = recipe.join_by_clip
    most = recipe.pack_tokens
    if rule is not None and rule.max_tokens > most:
        yield (
            f"join_by_clip: max_tokens: {rule.max_tokens} tokens do not fit into a pack of {most}; "
            "lower it, or raise `pack_tokens`"
        )


def _bad_names(recipe: Recipe) -> Iterator[str]:
    if not recipe.sources:
        yield "sources: empty; name at least one source"
    yield from repeated("sources", recipe.sources)
    yield from repeated("held_out", recipe.held_out)


def repeated(key: str, entries: Sequence[Published]) -> Iterator[str]:
    """What is wrong with names that several entries of a list have."""
    # every repeated name once, however often it is there
    counts = Counter(entry.name for entry in entries)
    for name, count in counts.items():
        if count > 1:
            yield f"{key}: {'two' if count == 2 else count} are named {name!r}; rename them apart"


def _bad_ratios(recipe: Recipe) -> Iterator[str]:
    wanted = recipe.ratio
    for i, source in enumerate(recipe.sources):
        where = f"sources[{i}] ({source.name})"
        # the first source says which of the three the recipe uses
        if source.ratios != [wanted]:
            yield (
                f"{where}: gives {source.ratios or 'no ratio'}; every source must give exactly "
                f"one of weight, repeat, budget, here {wanted!r}"
            )
        if source.allow_short and source.max_repeats is None and wanted != "budget":
            yield (
                f"{where}: allow_short: nothing can run short without `max_repeats`; add it, or "
                "remove allow_short"
            )


def _bad_amounts(recipe: Recipe) -> Iterator[str]:
    """What does not go with the ratio that the first source gives."""
    if recipe.ratio == "weight":
        yield from _bad_stages(recipe)
        return
    for key in ("length", "stages"):
        if getattr(recipe, key):
            yield f"{key}: a {recipe.ratio} recipe has its own; remove it"
    if recipe.ratio == "repeat" and recipe.unit != "samples":
        yield "unit: a repeat recipe counts samples; remove it"


def _bad_stages(recipe: Recipe) -> Iterator[str]:
    names = [source.name for source in recipe.sources]
    last = -1
    for i, stage in enumerate(recipe.stages):
        where = f"stages[{i}]"
        for unknown in (name for name in stage.weights if name not in names):
            yield f"{where}: weights: no source is named {unknown!r}; name one of {names}"
        if stage.start <= last:
            yield f"{where}: start: {stage.start} is not after {last}; order the stages"
        # starts ascend, so that a stage ends where the next begins
        last = stage.start
    yield from _bad_weights(recipe)


def _bad_weights(recipe: Recipe) -> Iterator[str]:
    if not recipe.sources or any(source.ratios != ["weight"] for source in recipe.sources):
        return  # said already, and then there are no shares
    for start, weights in recipe.weights():
        if not any(weights):
            yield f"stages: from {start} on every weight is 0; raise one"


def _bad_duplicates(recipe: Recipe) -> Iterator[str]:
    if recipe.duplicates == "keep" and recipe.near_text is not None:
        yield (
            "near_text: refuses near duplicates, and `duplicates: keep` keeps even exact ones; "
            "remove one of the two"
        )


def check_view(view: View, profile: Profile, where: str) -> None:
    """Raise UserError where a view asks for more than a pool of this profile holds."""
    if broken := [f"{where}: {line}" for line in _beyond(view, profile)]:
        raise UserError(*broken)


def _bad_frames(recipe: Recipe) -> Iterator[str]:
    yield from _beyond(recipe.frames, recipe.profile)


def _bad_query(recipe: Recipe) -> Iterator[str]:
    """Frames are selected by scores of what one sample asks of the clips that it names."""
    if recipe.frames.selection != "query":
        if recipe.frame_scores is not None:
            yield "frame_scores: nothing selects by them; write `frames: {selection: query}`"
        return
    if recipe.frame_scores is None:
        yield (
            "frames: selection: query selects by a column of scores; name it, such as "
            "`frame_scores: score_frames` (docs/pool.md)"
        )
    if recipe.canonical_clips:
        yield (
            "canonical_clips: shows clips that have no scores for the samples of others, and "
            "`frames: {selection: query}` wants them; remove one of the two"
        )
    if recipe.join_by_clip is not None:
        yield (
            "join_by_clip: joined conversations share frames, and with `frames: {selection: "
            "query}` each is shown its own; remove one of the two"
        )


def _beyond(view: View, profile: Profile) -> Iterator[str]:
    if view.min_area > view.area:
        yield (
            f"frames: min_area: {view.min_area} is more than the area {view.area}; lower it, or "
            "raise the area"
        )
    pairs = (
        ("fps", view.fps, profile.fps),
        ("cap", view.cap, profile.frame_cap),
        ("area", view.area, profile.video_area),
    )
    for key, wanted, held in pairs:
        if wanted > held:
            yield (
                f"frames: {key}: the view asks for {wanted}, the pool's profile holds {held}; "
                "lower it, or raise the profile and build another pool"
            )


RULES = (
    _bad_names,
    _bad_ratios,
    _bad_amounts,
    _bad_places,
    _bad_join,
    _bad_duplicates,
    _bad_frames,
    _bad_query,
)
"""Every rule between keys; each yields its lines without the name of the file."""
