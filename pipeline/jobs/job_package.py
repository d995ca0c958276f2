"""What a Ray job's package carries that it should not: media and archives, to every machine."""

from __future__ import annotations

from pathlib import Path

from mixtures.recipe.allowed_paths import OPTION

HEAVY = frozenset(
    ".avi .bmp .flv .gif .gz .jpeg .jpg .m4v .mkv .mov .mp4 .mpeg .mpg .parquet .png .tar .tgz "
    ".webm .webp .zip".split()
)
"""Endings of media, and of files that media are published in."""


def media_told(package: Path | None) -> str:
    """A line about the media in a job's package; "" where there are none, or no package."""
    files = package.rglob("*") if package else ()
    sizes = [one.stat().st_size for one in files if one.suffix.lower() in HEAVY and one.is_file()]
    if not sizes:
        return ""
    return (
        f"this job's package holds {len(sizes)} media files and archives ({sum(sizes):,} bytes), a "
        "copy for every machine: keep them outside the working directory, on a folder that all "
        f"machines mount, and give {OPTION}; or name them in .rayignore"
    )
