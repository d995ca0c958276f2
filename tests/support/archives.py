"""Archives of made members, and annotations that ask for them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

from tests.support.small_world import row


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def asks(path: Path, names: list[str]) -> Path:
    """LLaVA rows that ask one question about each of these media."""
    kinds = ["video" if name.startswith("films") else "image" for name in names]
    rows = [
        row(name, kind, name, f"What is {name}?", "this")
        for name, kind in zip(names, kinds, strict=True)
    ]
    path.write_text(json.dumps(rows))
    return path
