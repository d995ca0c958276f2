"""A model folder of a stranger: one line and status 2 for whatever it says; nothing of it runs."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train.__main__
from mixtures.manifest.files import load_manifest
from shards.errors import run_command
from shards.ids import sha256_file
from tests.support.published.made_weights import oryx_file, qwen_folder
from tests.support.small_world import picture
from tests.support.tiny_pool import tiny_manifest
from train.assemble import assemble
from train.model.config import SlowFastConfig
from train.model.vision import OryxVisionConfig
from train.weights.folder_json import OURS, TOWERS

torch.set_num_threads(1)
DEEP = b"[" * 100_000 + b"]" * 100_000
KERNEL = "kernels-community/evil"
WEIGHTS, CONFIG, ABOUT = "model.safetensors", "config.json", "data.json"
Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, a published decoder and tower, and `start`, a model folder of ours."""
    folder = tmp_path_factory.mktemp("world")
    manifest = tiny_manifest(folder)
    qwen_folder(folder / "qwen", load_manifest(manifest).tokenizer, shards=1)
    oryx_file(folder / "oryx" / "oryx_vit.pth")
    assemble(str(folder / "qwen"), str(folder / "oryx"), folder / "recipe.yaml", folder / "start")
    picture(folder / "asked.jpg", 1)
    said = (("human", "<image>\nWhat is it?"), ("gpt", "it"))
    turns = [{"from": who, "value": text} for who, text in said]
    task = {"id": "1", "image": "asked.jpg", "conversations": turns}
    (folder / "tasks.json").write_text(json.dumps([task]))
    (folder / "config.yaml").write_text("schedule: {warmup: 0}\nstop: {steps: 1}\n")
    return folder


class Runs:
    """A pickle that leaves a mark where it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.mark), "w")


def changed(file: str, change: Callable[[dict], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        value = json.loads((folder / file).read_text())
        change(value)
        (folder / file).write_text(json.dumps(value))

    return spoil


def says(**changes: object) -> Spoil:
    return changed(CONFIG, lambda config: config.update(changes))


def text_says(**changes: object) -> Spoil:
    return changed(CONFIG, lambda config: config.get("text_config", config).update(changes))


def holds(file: str, data: bytes) -> Spoil:
    return lambda folder: (folder / file).write_bytes(data)


def headed(header: bytes, length: int | None = None) -> Spoil:
    size = (len(header) if length is None else length).to_bytes(8, "little")
    return holds(WEIGHTS, size + header)


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    for name in ("pytorch_model.bin", "model.bin", "adapter_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Runs(folder.parent / "ran")))


TENSOR = b'{"a": {"dtype": %s, "shape": %s, "data_offsets": %s}}'
BOTH: dict[str, Spoil] = {
    "attention of the hub": says(attn_implementation=KERNEL),
    "attention within": text_says(_attn_implementation_internal=KERNEL),
    "attention by part": says(attn_implementation={"": "sdpa", "text_config": KERNEL}),
    "flash attention, which falls back to a kernel": says(attn_implementation="flash_attention_2"),
    "an attention that is no name": says(attn_implementation=[KERNEL]),
    "classes": says(auto_map={"AutoModel": "evil.Model"}),
    "classes within": text_says(auto_map={"AutoModel": "evil.Model"}),
    "kernels": says(use_kernels=True),
    "quantisation": says(quantization_config={"quant_method": "bitsandbytes"}),
    "config is deep": holds(CONFIG, DEEP),
    "config is deep within": holds(CONFIG, b'{"model_type": ' + DEEP + b"}"),
    "config is a list": holds(CONFIG, b"[]"),
    "config is empty": holds(CONFIG, b""),
    "config is no text": holds(CONFIG, b"\xff\xfe{"),
    "config is a number of many digits": holds(CONFIG, b'{"vocab_size": ' + b"9" * 5000 + b"}"),
    "a size is text": text_says(hidden_size="32"),
    "a size is negative": text_says(num_hidden_layers=-1),
    "layers without end": text_says(num_hidden_layers=10**9),
    "an activation that is none": text_says(hidden_act="evil"),
    "a model that is none": text_says(model_type="evil"),
    "a model that is no name": text_says(model_type=["qwen2"]),
    "weights are pickles": pickled,
    "a header is deep": headed(DEEP),
    "a header is a list": headed(b"[]"),
    "a header is no JSON": headed(b"{{{{"),
    "a header longer than its file": headed(b"{}", 1 << 62),
    "a shape is text": headed(TENSOR % (b'"F32"', b'"ab"', b"[0, 0]")),
    "a shape is negative": headed(TENSOR % (b'"F32"', b"[-1, -1]", b"[0, 4]")),
    "a type is a list": headed(TENSOR % (b"[]", b"[1]", b"[0, 4]")),
    "offsets are three": headed(TENSOR % (b'"F32"', b"[1]", b"[0, 4, 8]")),
    "a tensor is a number": headed(b'{"a": 5}'),
    "weights are empty": holds(WEIGHTS, b""),
}
OWN: dict[str, Spoil] = {
    "an unknown key": says(evil=1),
    "an unknown key of the tower": changed(CONFIG, lambda c: c["vision_config"].update(evil=1)),
    "packed attention of the hub": says(packed_attention=KERNEL),
    "no tower": says(vision_config=None),
    "no decoder": says(text_config="qwen2"),
    "a layout that is none": changed(ABOUT, lambda about: about["layout"].update(evil=1)),
    "a view that is none": changed(ABOUT, lambda about: about["frames"].update(evil=1)),
    "an unknown key of data.json": changed(ABOUT, lambda about: about.update(evil=1)),
    "data.json lacks a key": changed(ABOUT, lambda about: about.pop("template")),
    "data.json names a file elsewhere": changed(
        ABOUT, lambda about: about["files"].update({"../../etc/passwd": "0" * 64})
    ),
    "data.json is deep": holds(ABOUT, DEEP),
    "data.json is a list": holds(ABOUT, b"[]"),
}


SHOWN = ("a layout that is none", "a view that is none")


def sealed(folder: Path) -> None:
    """What a stranger does who spoils a folder: its digests are those of the files as they are."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        names = [name for name in about["files"] if (folder / name).is_file()]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return
    about["files"] |= {name: sha256_file(folder / name) for name in names if "/" not in name}
    (folder / ABOUT).write_text(json.dumps(about))


def refused(
    words: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """The one line with which the command ends, which names the folder; nothing was run."""
    monkeypatch.setattr(sys, "argv", ["train", *words])
    with pytest.raises(SystemExit) as left:
        run_command(train.__main__.main)
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert left.value.code == 2 and len(lines) == 1 and "Traceback" not in said, said[-2000:]
    named = str(folder) in lines[0] or lines[0].startswith("error: decoder: ")
    assert named and len(lines[0]) < 1500, lines[0]
    assert not (folder.parent / "ran").exists()
    return lines[0]


@pytest.mark.parametrize(
    ("command", "case"),
    [
        (command, case)
        for command in ("chat", "evaluate", "run")
        for case in (*BOTH, *OWN)
        if command != "run" or case not in SHOWN  # a run shows media as its manifest says
    ],
)
def test_a_model_folder_of_a_stranger_is_refused_in_one_line(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
    command: str,
) -> None:
    folder, out = tmp_path / "model", tmp_path / "out.json"
    shutil.copytree(world / "start", folder)
    (BOTH | OWN)[case](folder)
    sealed(folder)
    words = {
        "chat": ["--model", folder, "--image", world / "asked.jpg", "--question", "What is it?"],
        "evaluate": ["--model", folder, "--tasks", world / "tasks.json", "--out", out],
        "run": [
            world / "config.yaml", "--manifest", world / "build/manifest.json",
            "--data", world / "pool", "--init-from", folder, "--out", tmp_path / "run",
        ],
    }  # fmt: skip
    refused([command, *map(str, words[command])], folder, monkeypatch, capsys)


@pytest.mark.parametrize("case", BOTH)
def test_a_published_folder_of_a_stranger_is_refused_in_one_line(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    folder, out = tmp_path / "decoder", tmp_path / "start"
    shutil.copytree(world / "qwen", folder)
    BOTH[case](folder)
    words = ["--decoder", folder, "--tower", world / "oryx", "--recipe", world / "recipe.yaml"]
    refused(["assemble", *map(str, [*words, "--out", out])], folder, monkeypatch, capsys)
    assert not out.exists()


@pytest.mark.parametrize("name", ["oryx_vit.pth", "pytorch_model.bin", "tower.pth", "tower.pt"])
def test_no_pickle_is_run_and_but_one_none_is_opened(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    (tmp_path / "tower").mkdir()
    path = tmp_path / "tower" / name
    path.write_bytes(pickle.dumps(Runs(tmp_path / "ran"), protocol=2))
    words = ["--decoder", world / "qwen", "--tower", path, "--recipe", world / "recipe.yaml"]
    line = refused(
        ["assemble", *map(str, [*words, "--out", tmp_path / "start"])],
        tmp_path / "tower",
        monkeypatch,
        capsys,
    )
    assert ("of pickles from oryx_vit.pth alone" in line) == (name != "oryx_vit.pth")


@pytest.mark.parametrize("case", ["attention of the hub", "config is deep", "weights are pickles"])
def test_a_folder_for_relevance_runs_nothing(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    folder = tmp_path / "siglip"
    shutil.copytree(world / "qwen", folder)
    text_says(model_type="siglip")(folder)
    BOTH[case](folder)
    words = ["--model", world / "start", "--image", world / "asked.jpg", "--question", "What?"]
    refused(["chat", *map(str, [*words, "--relevance", folder])], folder, monkeypatch, capsys)


def test_the_keys_that_are_known_are_those_that_are_written(world: Path) -> None:
    written = json.loads((world / "start" / CONFIG).read_text())
    assert written.keys() <= OURS and written["vision_config"].keys() <= TOWERS
    for config, known in ((SlowFastConfig, OURS), (OryxVisionConfig, TOWERS)):
        own = {name for name in vars(config).get("__annotations__", {}) if not name.startswith("_")}
        assert own - {"model_type", "sub_configs_defaults"} <= known
