"""Which version of a file a half-fetched part is of: `<part>.version`, in the envelope.

The part is continued only under that version. A note that is damaged, torn or another part's is
none: the part is begun again.
"""

from __future__ import annotations

from pathlib import Path

from shards.envelope import Envelope
from shards.errors import UserError

_ENVELOPE = Envelope(schema="slowfast-mix/part/1", if_damaged="remove it", if_outdated="remove it")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def read_version(part: Path) -> str:
    """The version that the part is of; "" where nothing that can be believed says so."""
    note = _note(part)
    try:
        said = _ENVELOPE.unseal(note.read_bytes(), str(note))
    except (FileNotFoundError, UserError):
        return ""
    return str(said["version"]) if said.get("part") == part.name and part.exists() else ""


def write_version(part: Path, version: str) -> None:
    """Say of which version the bytes of the part are; "" forgets it."""
    if version:
        _note(part).write_bytes(_ENVELOPE.seal({"part": part.name, "version": version}))
    else:
        _note(part).unlink(missing_ok=True)
