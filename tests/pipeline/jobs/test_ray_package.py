"""What `ray job submit --working-dir .` ships of a clone: code, and no media."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("ray")
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).resolve().parents[3]
MOST = 10_000_000  # bytes that a package unpacks to


def clone(folder: Path) -> Path:
    """The tracked files as they are now, and those that are about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    named = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, named.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def test_a_link_to_data_is_not_shipped(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no clone, so nothing says which files are tracked")
    data = tmp_path / "elsewhere"
    data.mkdir()
    (data / "film.avi").write_bytes(bytes(20_000_000))
    work = clone(tmp_path / "work")
    (work / "data").symlink_to(data)
    (work / "runs").mkdir()
    (work / "runs/model.safetensors").write_bytes(bytes(20_000_000))
    (work / "train2017.zip").write_bytes(bytes(20_000_000))
    package = tmp_path / "package.zip"
    create_package(str(work), package, include_gitignore=True)
    with zipfile.ZipFile(package) as shipped:
        names = shipped.namelist()
        nbytes = sum(each.file_size for each in shipped.infolist())
    code = {str(path.relative_to(work)) for path in work.rglob("*.py")}
    assert nbytes < MOST and code <= set(names), code - set(names)
    assert not [name for name in names if name.startswith(("data", "runs", "train2017"))]
