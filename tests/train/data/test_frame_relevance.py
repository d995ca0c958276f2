"""Selection by the question, end to end: a small SigLIP that learnt colours chooses the frames."""

from __future__ import annotations

import io
import json
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from rich.console import Console
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from torch.nn.functional import logsigmoid
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Processor,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.jobs.score_pool import score_pool
from pipeline.stages.scoring.score_table import scorer_of
from shards.errors import UserError
from shards.pool import Pool
from shards.sample import Turn
from tests.support.chat.one_question import chat
from tests.support.in_process import Here
from tests.support.tiny_pool import COLOURS, tiny_manifest
from tests.train.evaluation.test_evaluation import pair, trained, write_json
from train.data.frame_relevance import Relevance
from train.evaluation.answerer import Answerer, weights_digest
from train.evaluation.evaluate import evaluate
from train.evaluation.relevance import score_frames
from train.model import register

__all__ = ["trained"]  # a fixture: a small model folder
WORDS = ("[PAD]", "[UNK]", "when", "is", "it", *COLOURS)
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
FRAMES = 16
RED = (10, 11)
"""Which of 16 frames, two a second, are red; the others turn from green to blue."""


class Noting(Here):
    """Notes which units want a GPU."""

    def __init__(self) -> None:
        self.on_gpu: list[bool] = []

    def map(self, *given: Any, on_gpu: bool = False) -> Iterator[Any]:
        self.on_gpu.append(on_gpu)
        return super().map(*given)


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")


def untaught(kind: str) -> tuple[Any, Any]:
    """(model, processor) of one image size, or of packed patches (NaFlex)."""
    torch.manual_seed(0)
    text = SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": 8, "projection_size": 16}
    if kind == "siglip":
        vision = SIZES | {"image_size": 32, "patch_size": 16}
        images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        return model, SiglipProcessor(images, tokenizer())
    characters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *string.ascii_lowercase]
    letters = Siglip2Tokenizer({each: i for i, each in enumerate(characters)}, padding_side="right")
    text |= {"vocab_size": len(characters), "max_position_embeddings": 20}
    vision = SIZES | {"num_patches": 4, "patch_size": 16}
    naflex = Siglip2ImageProcessorPil(patch_size=16, max_num_patches=4)
    newer = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    return newer, Siglip2Processor(naflex, letters)


def taught(kind: str, folder: Path) -> Path:
    """A model that has learnt which word goes with which colour, saved by transformers."""
    model, processor = untaught(kind)
    frames = [np.full((32, 32, 3), colour, np.uint8) for colour in COLOURS.values()]
    words = [f"when is it {name}" for name in COLOURS]
    length = model.config.text_config.max_position_embeddings
    inputs = processor(
        text=words, images=frames, padding="max_length", max_length=length, return_tensors="pt"
    )
    inputs.pop("attention_mask", None)
    signs = 2 * torch.eye(len(words)) - 1
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        logits = model(**inputs).logits_per_image
        (-logsigmoid(signs * logits).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert logits.argmax(0).tolist() == logits.argmax(1).tolist() == [0, 1, 2]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught("siglip", tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shown = ["red" if i in RED else ("green", "blue")[i // 8] for i in range(FRAMES)]
    frames = np.stack([np.full((64, 64, 3), COLOURS[name], np.uint8) for name in shown])
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    command = "ffmpeg -v error -f rawvideo -pix_fmt rgb24 -s 64x64 -r 2 -i - -pix_fmt yuv420p -y"
    subprocess.run([*command.split(), str(path)], input=frames.tobytes(), check=True)
    return path


def test_chat_looks_at_the_frames_that_the_question_is_about(
    trained: Path, siglip: Path, film: Path
) -> None:
    wanted = {f"{frame / 2}s" for frame in RED}
    (plain,) = chat(trained, "video", film, "When is it red?").looked
    assert plain.times == ("0.0s", "2.0s", "4.0s", "6.0s") and not wanted & set(plain.times)
    (asked,) = chat(trained, "video", film, "When is it red?", siglip).looked
    assert len(asked.times) == 4 and wanted <= set(asked.times)
    (green,) = chat(trained, "video", film, "When is it green?", siglip).looked
    assert sum(float(time[:-1]) < 4 for time in green.times) >= 2
    assert green.times != asked.times


def test_siglip_2_scores_frames_of_any_shape(tmp_path: Path) -> None:
    relevance = Relevance(taught("siglip2", tmp_path))
    shapes = [(32, 32), (64, 32), (16, 64)]
    frames = [
        simplejpeg.encode_jpeg(np.full((*shape, 3), colour, np.uint8), 95)
        for shape, colour in zip(shapes, COLOURS.values(), strict=True)
    ]
    for i, name in enumerate(COLOURS):
        scores = relevance(frames, f"When is it {name}?")
        assert scores.index(max(scores)) == i


def test_questions_about_one_video_are_each_shown_their_own_frames(
    trained: Path, siglip: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [turn for name in COLOURS for turn in pair(f"When is it {name}?", name)]
    row = {"id": "v", "video": film.name, "conversations": turns}
    (tmp_path / film.name).write_bytes(film.read_bytes())
    tasks = [write_json(tmp_path / "test.json", [row])]
    encoded = []
    encode = Relevance._encode
    monkeypatch.setattr(Relevance, "_encode", lambda s, j: encoded.append(len(j)) or encode(s, j))
    quiet = Console(file=io.StringIO())
    result = evaluate(trained, tasks, [], tmp_path / "asked.json", quiet, siglip)
    assert result["selection"] == "query"
    assert encoded == [FRAMES]
    assert evaluate(trained, tasks, [], tmp_path / "plain.json", quiet)["selection"] == "uniform"
    rows = json.loads((tmp_path / "asked.json").read_text())["pathways"]["both"]["tasks"]
    for asked in rows[f"{tmp_path.name}/test"]["answers"]:
        reply = chat(trained, "video", film, asked["question"], siglip)
        assert asked["said"] == reply.answer[: len(asked["said"])]


def test_a_processor_asks_for_the_scores_that_its_rules_want(
    trained: Path, siglip: Path, film: Path
) -> None:
    register()
    asking = AutoProcessor.from_pretrained(trained)
    asking.frames = asking.frames | {"selection": "query"}
    content = [{"type": "video", "video": str(film)}, {"type": "text", "text": "When is it red?"}]
    conversation = [{"role": "user", "content": content}]
    with pytest.raises(ValueError, match=r"conversation 0: .* query needs 16 scores, .* has 0"):
        asking.apply_chat_template(conversation, tokenize=True)
    asking.relevance = Relevance(siglip)
    inputs = asking.apply_chat_template(conversation, tokenize=True)
    assert {frame / 2 for frame in RED} <= set(inputs["seconds"].tolist())


def test_a_pool_is_scored_by_each_frames_best_question(
    siglip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_manifest(tmp_path)
    pool = Pool(str(tmp_path / "pool"))
    name, model = "train.evaluation.relevance:score_frames", str(siglip)
    encoded = []
    features = Relevance._features
    monkeypatch.setattr(
        Relevance, "_features", lambda s, frames: encoded.append(1) or features(s, frames)
    )
    workers = Noting()
    with steps() as bars:
        job = Job(pool=pool, workers=workers, bars=bars)
        with pytest.raises(UserError, match="score_frames: wants a model; give --model FOLDER"):
            score_pool(name, "sample_frame", job)
        with pytest.raises(UserError, match=r"--per frame calls it with \(frames, model\)"):
            score_pool(name, "frame", job, model)
        workers.on_gpu.clear()
        scored = score_pool(name, "sample_frame", job, model)
    # to find the scorer takes no GPU, to run its model does
    assert workers.on_gpu == [False, True]
    assert scored.rows == len(encoded) == 30 and 0 < scored.least < scored.most < 65_536
    # a question that names a colour is the best one where its frames are
    frames = [np.full((64, 64, 3), colour, np.uint8) for colour in COLOURS.values()]
    asked = [Turn(role="user", text=f"When is it {one}?") for one in ("red", "blue")]
    red, green, blue = score_frames(frames, asked, siglip)
    assert green < min(red, blue)
    alone = [score_frames(frames, [one], siglip) for one in asked]
    assert [red, green, blue] == [max(both) for both in zip(*alone, strict=True)]
    # other files of a model are another column
    other = shutil.copytree(siglip, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    digests = {scorer_of(name, "sample_frame", at).digest for at in (model, str(other))}
    assert len(digests) == 2 and scored.digest in digests


def test_a_model_that_was_trained_by_questions_is_asked_by_them(
    trained: Path, siglip: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(trained, tmp_path / "model")
    said = json.loads((model / "data.json").read_text())
    said["frames"]["selection"] = "query"
    (model / "data.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match=r"shown frames that fit the question; name .*--relevance"):
        Answerer(model)
    asked = Answerer(model, siglip)
    assert asked.rules.view.selection == "query"
    # predictions by one scorer are not gone on from by another
    assert asked.identity["relevance"] == weights_digest(siglip)


def test_a_folder_that_holds_no_siglip_is_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a model folder of transformers \(no config.json\)"):
        Relevance(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "gpt2"})
    with pytest.raises(UserError, match="a model of type 'gpt2'; use one of siglip, siglip2"):
        Relevance(tmp_path)
