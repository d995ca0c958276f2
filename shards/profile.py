"""The media profile of a pool: what the media door keeps of a clip. One per pool."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from shards.envelope import Envelope
from shards.errors import UserError
from shards.ids import short_hash

DOOR_VERSION = "media-door/4"
PROFILE = Envelope(
    schema="slowfast-mix/profile/2",
    if_damaged="remove it and build again with a recipe of this pool",
    if_outdated="build another pool, and what was made from it, anew",
)
"""Of a pool's profile.json."""
_AREA = (64 * 64, 4096 * 4096)


def _key(meaning: str, example: object, **bounds: object) -> dict[str, object]:
    """What a recipe's key of that name means and may hold (mixtures.keys says it elsewhere)."""
    # pydantic's words, which mixtures.recipe reads; shards import no pydantic
    return {"description": meaning, "examples": [str(example)], **bounds}


def _whole(default: int, least: int, most: int, meaning: str) -> int:
    """A field that is an integer from `least` to `most`."""
    metadata = _key(meaning, default, strict=True, ge=least, le=most)
    whole: int = field(default=default, metadata=metadata)
    return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a pool stores frames: scaled down to an area in pixels, never enlarged, as they are."""

    fps: int = _whole(2, 1, 60, "Frames kept of every second at most.")
    frame_cap: int = _whole(512, 1, 65_536, "Frames kept of a clip at most, spread over all of it.")
    video_area: int = _whole(480 * 480, *_AREA, "Pixels of a video's frame at most.")
    image_area: int = _whole(1536 * 1536, *_AREA, "Pixels of an image at most.")
    jpeg_quality: int = _whole(90, 1, 100, "JPEG quality of the frames.")
    tone_map: Literal["hable"] = field(
        default="hable", metadata=_key("How colours of HDR become those of a JPEG.", "hable")
    )
    door: str = DOOR_VERSION

    @property
    def profile_id(self) -> str:
        """H of every value: another profile is another clip id."""
        return short_hash(asdict(self))

    def to_json(self) -> dict[str, Any]:
        """The profile as its file and a recipe say it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Profile:
        """The inverse; UserError for other keys, or for another version of the media door."""
        # every key: one that is missing would silently take a default of this version
        known = set(cls.__dataclass_fields__)
        if set(value) != known:
            raise UserError(
                f"{where}: keys {sorted(set(value) ^ known)} do not fit; use another pool"
            )
        if value["door"] != DOOR_VERSION:
            raise UserError(
                f"{where}: its media were kept by {value['door']}, this version keeps them by "
                f"{DOOR_VERSION}; build another pool, and what was made from it, anew"
            )
        return cls(**value)
