"""Shared prefixes and caches change no answer: likelihoods to 1e-4, choices and replies exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixtures.tokens.text import IM_END
from shards.sample import Turn
from tests.support.tiny_pool import COLOURS, QUESTIONS, tiny_manifest
from tests.support.tiny_run import TINY
from tests.train.evaluation.test_evaluation import video
from train.data.collate import build_pack
from train.data.jpeg_patches import open_jpegs
from train.data.render import render
from train.data.user_media import Seen, see_files
from train.evaluation import answerer as module
from train.evaluation.answerer import Answerer, VisualQuestion
from train.loop import run
from train.model.inputs import packed_row

OPTIONS = (*COLOURS, "red red red", "a")
TEXTS = (*QUESTIONS, "Which colour came last, and which came first?", "A")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    folder = tmp_path_factory.mktemp("trained")
    manifest = tiny_manifest(folder)
    run(TINY, manifest, str(folder / "pool"), folder / "out")
    model = folder / "out" / "model"
    path = video(folder / "red.mp4")
    (seen,) = see_files([(path, "video", "red")], Answerer(model).profile)
    return model, seen


def by_hand(answerer: Answerer, seen: Seen, question: str, reply: str) -> float:
    """log p of one reply in one uncached pass over the whole text."""
    rules = answerer.rules

    def opened(_: int, view: object, used: object) -> object:
        return open_jpegs(seen.jpegs, view, used, seen.clip)  # type: ignore[arg-type]

    turn = Turn(role="user", text=question, media=((0, 0),))
    sample = render("", [turn], [seen.clip], opened, rules, answer=True)  # type: ignore[arg-type]
    row = packed_row(build_pack([sample], rules.layout))
    ids = torch.tensor([*rules.codec.encode(reply), rules.codec.token_id(IM_END)])
    with torch.no_grad():
        behind: Tensor = answerer.model.get_input_embeddings()(ids)
        rows = torch.cat([answerer.model.embed(row.ids, row.visual), behind])
        logits = answerer.model(inputs_embeds=rows[None], use_cache=False).logits[0]
    said = logits[len(row.ids) - 1 : -1].log_softmax(-1)
    return float(said.gather(1, ids[:, None]).sum())


def test_likelihoods_are_those_of_one_uncached_pass(asked: tuple[Path, Seen]) -> None:
    model, seen = asked
    answerer = Answerer(model)
    questions = [VisualQuestion(text=text, seen=(seen,), options=OPTIONS) for text in TEXTS]
    shared = answerer.answer(questions, "both")
    assert answerer.encoded == 1
    alone = [answerer.answer([question], "both")[0] for question in questions]
    for text, one, other in zip(TEXTS, shared, alone, strict=True):
        truth = [by_hand(answerer, seen, text, reply) for reply in OPTIONS]
        assert one.likelihoods == pytest.approx(truth, abs=1e-4)
        assert other.likelihoods == pytest.approx(truth, abs=1e-4)
        assert one.chosen == other.chosen == truth.index(max(truth))


def test_in_bf16_rotary_frequencies_stay_as_they_are(asked: tuple[Path, Seen]) -> None:
    model = Answerer(asked[0], precision="bf16").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    frequencies = [value for name, value in model.named_buffers() if "inv_freq" in name]
    assert frequencies and all(value.dtype == torch.float32 for value in frequencies)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_shared_prefix_and_the_size_of_batches_change_no_reply(
    asked: tuple[Path, Seen], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = asked
    answerer = Answerer(model, batch=batch)
    questions = [VisualQuestion(text=text, seen=(seen,)) for text in TEXTS * 2]
    shared = answerer.answer(questions, "both", 12)
    assert answerer.encoded == 1
    monkeypatch.setattr(module, "shared_tokens", lambda _: 0)
    assert answerer.answer(questions, "both", 12) == shared
    assert answerer.encoded == 1 + len(questions)


def test_questions_and_choices_over_several_media_come_back_in_order(
    asked: tuple[Path, Seen], tmp_path: Path
) -> None:
    model, seen = asked
    answerer = Answerer(model, batch=2)
    (other,) = see_files([(video(tmp_path / "b.mp4"), "video", "b")], answerer.profile)
    questions = [
        VisualQuestion(text=QUESTIONS[0]),
        VisualQuestion(text=QUESTIONS[0], seen=(seen,), options=OPTIONS),
        VisualQuestion(text=QUESTIONS[1], seen=(seen,)),
        VisualQuestion(text="<image 2> or <image 1>?", seen=(seen, other)),
        VisualQuestion(text=QUESTIONS[1], seen=(seen,), options=OPTIONS),
        VisualQuestion(text=QUESTIONS[1], options=("red", "blue")),
    ]
    together = answerer.answer(questions, "both")
    alone = [answerer.answer([question], "both")[0] for question in questions]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.chosen for one in together] == [one.chosen for one in alone]
    assert [one.chosen is None for one in together] == [True, False, True, True, False, False]
