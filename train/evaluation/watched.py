"""Media of a benchmark's copy, decoded once each: what the model is shown, or why it is not."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixtures.tokens.frame_selection import SCORED
from mixtures.tokens.layout_types import View
from pipeline.sources.records import MediaRef
from shards.ids import sha256_hex, short_hash
from train.data.user_media import MediaRefusal, Seen, Stills, reordered, see_each
from train.evaluation.answerer import Answerer
from train.evaluation.copies import Copy, Missing


@dataclass(frozen=True, slots=True)
class Watched:
    """A medium that could be shown."""

    seen: Seen


def see_references(
    answerer: Answerer, copy: Copy, wanted: Sequence[MediaRef]
) -> dict[MediaRef, Watched | Missing]:
    """Each distinct medium of these, decoded together."""
    distinct = list(dict.fromkeys(wanted))
    # bytes that came with a row become files: the sandbox opens files only
    with tempfile.TemporaryDirectory() as folder:
        places = {ref: _place(copy, ref, Path(folder, str(i))) for i, ref in enumerate(distinct)}
        # one call for all: files share the start of a child process
        there = [(ref, at) for ref, at in places.items() if not isinstance(at, Missing)]
        media = [(at, ref.kind, ref.span, ref.name or ref.address) for ref, at in there]
        every = see_each(media, answerer.profile)
    missing = {ref: at for ref, at in places.items() if isinstance(at, Missing)}
    shown = {ref: _shown(one) for (ref, _), one in zip(there, every, strict=True)}
    return {ref: missing.get(ref) or shown[ref] for ref in distinct}


def _place(copy: Copy, ref: MediaRef, file: Path) -> Path | Stills | Missing:
    """The medium's file; bytes that came with the question by way of the file `own`."""
    if ref.data is None:
        return copy.find(ref)
    file.write_bytes(ref.data)
    return file


def _shown(one: Seen | MediaRefusal) -> Watched | Missing:
    return Missing(f"{one.code}: {one.detail}") if isinstance(one, MediaRefusal) else Watched(one)


def shuffled(seen: Seen, view: View) -> Seen:
    """The frames of a video in another order, their times as they were: a floor for what needs
    the order of frames. The order is drawn by the frames' content."""
    content = short_hash([sha256_hex(jpeg) for jpeg in seen.jpegs])
    # a permutation by hash: the same on every rank and in every run
    order = sorted(range(len(seen.jpegs)), key=lambda i: short_hash([content, i]))
    return reordered(seen, order, differences_too=view.selection in SCORED)
