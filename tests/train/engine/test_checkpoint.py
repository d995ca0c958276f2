from __future__ import annotations

import json
from pathlib import Path

import pytest

from shards.errors import DamagedData, UserError
from train.engine import checkpoint


def save(root: Path, step: int, content: bytes = b"weights") -> Path:
    folder = checkpoint.pending(root, step)
    checkpoint.begin(folder)
    (folder / "inner").mkdir()
    (folder / "model").write_bytes(content)
    (folder / "inner" / "optimizer").write_bytes(b"moments")
    return checkpoint.commit(
        folder,
        {
            "step": step,
            "updates": step - 1,
            "total": 200,
            "manifest_id": "m",
            "config": "c",
            "precision": "fp32",
            "optimizer_state": "fp32",
            "frozen": {"tower": {"source": "here", "sha256": "00ff"}},
            "guard": {"losses": [(2.7).hex()], "skipped": 1},
            "data": {"step": step},
        },
    )


def test_nothing_saved_is_nothing_found(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") is None


def test_the_highest_committed_step_is_found_and_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 20, 100):
        save(tmp_path, step)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, found.data, set(found.files)) == (
        100,
        {"step": 100},
        {"model", "inner/optimizer"},
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000100"]


def test_a_save_killed_before_its_commit_is_never_read(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (save(tmp_path, 10) / checkpoint.COMMITTED).unlink()  # killed between rename and commit
    half = checkpoint.pending(tmp_path, 15)  # killed while writing
    checkpoint.begin(half)
    (half / "model").write_bytes(b"wei")
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 5
    assert save(tmp_path, 10).name == "step-00000010"
    assert checkpoint.latest(tmp_path).step == 10  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["model", "inner/optimizer"])
def test_a_changed_byte_is_refused_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 5) / name
    data = bytearray(path.read_bytes())
    data[2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedData, match=f"{name}: not the bytes that were saved"):
        checkpoint.latest(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (save(tmp_path, 5) / "model").unlink()
    with pytest.raises(DamagedData, match="model"):
        checkpoint.latest(tmp_path)


def test_a_checkpoint_of_another_version_is_named_so(tmp_path: Path) -> None:
    note = save(tmp_path, 5) / checkpoint.COMMITTED
    value = checkpoint.ENVELOPE.unseal(note.read_bytes(), "here")
    note.write_text(json.dumps(value | {"schema": "slowfast-mix/checkpoint/3"}))
    said = (
        r"step-00000005/COMMITTED\.json: written by another version .*checkpoint/4.*; give another"
    )
    with pytest.raises(UserError, match=said):
        checkpoint.latest(tmp_path)


def test_a_damaged_commit_note_is_refused(tmp_path: Path) -> None:
    note = save(tmp_path, 5) / checkpoint.COMMITTED
    note.write_bytes(note.read_bytes().replace(b'"step":5', b'"step":4', 1))
    with pytest.raises(DamagedData, match=r"COMMITTED\.json: not as it was written; delete"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize("change", [{"step": 4}, {"data": {"step": 4}}])
def test_step_folder_and_data_agree(tmp_path: Path, change: dict[str, object]) -> None:
    note = save(tmp_path, 5) / checkpoint.COMMITTED
    value = checkpoint.ENVELOPE.unseal(note.read_bytes(), "here")
    note.write_bytes(checkpoint.ENVELOPE.seal(value | change))
    with pytest.raises(DamagedData, match=r"COMMITTED\.json: step .* data, in step-00000005"):
        checkpoint.latest(tmp_path)


def test_a_folder_that_was_renamed_is_no_other_step(tmp_path: Path) -> None:
    save(tmp_path, 5).rename(tmp_path / "step-00000006")
    with pytest.raises(DamagedData, match="in step-00000006; delete its folder"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize(
    ("what", "now"),
    [("manifest", ("other", "c")), ("config", ("m", "x"))],
)
def test_another_run_does_not_resume_here(tmp_path: Path, what: str, now: tuple[str, str]) -> None:
    save(tmp_path, 5)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    checkpoint.check_same_run(found, "m", "c")
    with pytest.raises(UserError, match=f"saved with {what}"):
        checkpoint.check_same_run(found, *now)
