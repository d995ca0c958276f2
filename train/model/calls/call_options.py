"""What a processor's caller may ask for, under the names of transformers.

Keywords of transformers' processors that act here are fields of `CallOptions` or read in
`call_options`; every other one is refused by its name, for the model's rules decide it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mixtures.tokens.layout_types import View
from shards.errors import UserError
from shards.profile import Profile
from train.model.calls.keywords import refuse_others

NESTED = ("text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs")
"""Dictionaries of keywords by what they are for; they may as well be given flat."""
TENSORS = ("pt", "np")
ALL_FRAMES = 1_000_000
"""A rate and a number of frames that no stored clip reaches."""
SETTLED: dict[str, tuple[Any, str]] = {
    "add_special_tokens": (False, "the template's control tokens are all there are"),
    "sanitize_control_tokens": (True, "messages never spell control tokens"),
}
"""Keywords with one value that says what is done anyway; any other value is refused."""
KNOWN = (
    *("padding", "padding_side", "max_length", "truncation", "pad_to_multiple_of"),
    *("return_attention_mask", "return_tensors", "video_metadata"),
    *("do_sample_frames", "num_frames", "fps"),
    *SETTLED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How rows are padded and cut, what comes back, and what is shown of videos.

    Rows are as long as the longest, as `max_length` where `fill`, and a multiple of `multiple`.
    """

    side: str
    ragged: bool
    fill: bool
    cut: bool
    max_length: int | None
    multiple: int
    mask: bool
    tensors: str
    view: View
    metadata: Any


def call_options(given: Mapping[str, Any], side: str, view: View, profile: Profile) -> CallOptions:
    """The options of these keywords, flat or nested; TypeError and UserError name the others.

    `side` is where rows are padded by default; `view` and `profile` are the model's.
    """
    # known at all, then settled by the model's rules, then with a value that there is
    flat = _flat(given)
    refuse_others(
        "processor", flat, KNOWN, "the model's rules decide it (processor.to_dict()); leave it out"
    )
    for name, (value, why) in SETTLED.items():
        _want(name, flat.get(name, value), (value,), why)
    padding = flat.get("padding", True)
    cut = flat.get("truncation", False)
    _want("padding", padding, (True, False, "longest", "max_length", "do_not_pad"))
    _want("truncation", cut, (True, False, "longest_first", "only_first", "do_not_truncate"))
    _want("padding_side", flat.get("padding_side", side), ("left", "right"))
    # transformers' enums and plain strings name the same
    tensors = flat.get("return_tensors", "pt")
    _want("return_tensors", getattr(tensors, "value", tensors), TENSORS)
    fill = padding == "max_length"
    cut = cut not in (False, "do_not_truncate")
    # a length without either would change nothing
    length = flat.get("max_length")
    if (length is None) == (fill or cut):
        raise UserError("processor: max_length goes with truncation or padding='max_length'")
    return CallOptions(
        side=flat.get("padding_side", side),
        ragged=padding in (False, "do_not_pad"),
        fill=fill,
        cut=cut,
        max_length=length,
        multiple=flat.get("pad_to_multiple_of", 1),
        mask=flat.get("return_attention_mask", True),
        tensors=getattr(tensors, "value", tensors),
        view=_view(flat, view, profile),
        metadata=flat.get("video_metadata"),
    )


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keywords beside the flat ones, those without a value left out."""
    flat: dict[str, Any] = {}
    nested = [given.get(name) or {} for name in NESTED]
    for part in ({k: v for k, v in given.items() if k not in NESTED}, *nested):
        for name, value in part.items():
            # what is only asked to be left out is left out
            if value is None or (name.startswith("return_") and value is False):
                if name != "return_attention_mask" or value is None:
                    continue
            if flat.get(name, value) != value:
                raise UserError(f"processor: {name} is given twice; give it once")
            flat[name] = value
    return flat


def _want(name: str, value: Any, allowed: tuple[Any, ...], why: str = "") -> None:
    if not any(value is one or (isinstance(one, str) and value == one) for one in allowed):
        choices = ", ".join(map(repr, allowed))
        raise UserError(f"processor: {name}={value!r}; use {choices}" + (f": {why}" if why else ""))


def _view(flat: Mapping[str, Any], view: View, profile: Profile) -> View:
    """The model's view with the rate and number of frames asked for."""
    rate = flat.get("fps")
    most = flat.get("num_frames")
    if not flat.get("do_sample_frames", True):
        if rate is not None or most is not None:
            raise UserError(
                "processor: do_sample_frames=False with fps or num_frames; leave one out"
            )
        # all stored frames: the rate and the cap of the view are out of reach
        return replace(view, fps=ALL_FRAMES, cap=ALL_FRAMES)
    for name, value, bound in (("fps", rate, profile.fps), ("num_frames", most, profile.frame_cap)):
        # `fps=2.0` is 2: transformers has floats there
        if value is not None and (value != int(value) or not 1 <= value <= bound):
            raise UserError(
                f"processor: {name}={value!r}; give a whole number from 1 to {bound}, of which the "
                "media door keeps no more"
            )
    return replace(
        view, fps=view.fps if rate is None else int(rate), cap=view.cap if most is None else most
    )
