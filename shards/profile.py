"""The media profile of a pool: what the media door keeps of a clip. One per pool."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from shards.errors import UserError
from shards.ids import short_hash

DOOR_VERSION = "media-door/3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a pool stores frames (data model, "What the pool keeps, what a recipe shows").

    Areas are in pixels: a picture is scaled down to them, never enlarged, and keeps its shape.
    `fps` is the densest rate kept, `frame_cap` frames at most, spread over the whole video.
    """

    fps: int = 2
    frame_cap: int = 512
    video_area: int = 480 * 480
    image_area: int = 1536 * 1536
    jpeg_quality: int = 90
    tone_map: str = "hable"
    door: str = DOOR_VERSION

    @property
    def profile_id(self) -> str:
        return short_hash(asdict(self))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Profile:
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
