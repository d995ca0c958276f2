"""A conversation: turns, several media, replies as they come, mistakes that do not end it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.inputs.made_model import made_model
from mixtures.tokens.text import IM_END
from shards.errors import UserError
from tests.support.chat.one_question import chat
from tests.train.evaluation.test_evaluation import video
from train import __main__ as command_line
from train.chat import web
from train.chat.conversation import Conversation, Pieces
from train.chat.terminal import lines_of_a_person, talk
from train.evaluation.answerer import Answerer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    made_model(folder / "model")
    video(folder / "red.mp4")
    Image.new("RGB", (80, 70), "blue").save(folder / "blue.png")
    (folder / "broken.png").write_bytes(b"<html>")
    return folder


@pytest.fixture(scope="module")
def answerer(world: Path) -> Answerer:
    return Answerer(world / "model")


def test_replies_come_in_pieces_and_say_what_was_looked_at(world: Path, answerer: Answerer) -> None:
    conversation = Conversation(answerer, 24)
    conversation.show("video", world / "red.mp4")
    told: list[str] = []
    reply = conversation.ask("What is shown?", told.append)
    assert "".join(told).strip() == reply.answer
    assert len(told) > 2
    (looked,) = reply.looked
    assert (looked.name, looked.kind, looked.size) == ("red.mp4", "video", (64, 64))
    assert looked.times == ("0.0s", "0.5s", "1.0s", "1.5s", "2.0s", "2.5s")
    frames = list(conversation.frames())
    assert [text for _, text in frames] == [f"{time} red.mp4" for time in looked.times]
    assert {pixels.shape for pixels, _ in frames} == {(64, 64, 3)}


def test_a_later_turn_knows_what_was_said_and_shown(world: Path, answerer: Answerer) -> None:
    conversation = Conversation(answerer, 8)
    conversation.show("video", world / "red.mp4")
    first = conversation.ask("What is shown?")
    conversation.show("image", world / "blue.png")
    second = conversation.ask("And here?")
    third = conversation.ask("Which?")
    assert [len(reply.looked) for reply in (first, second, third)] == [1, 1, 0]
    assert second.looked[0].kind == "image"
    said = [(turn.role, turn.media) for turn in conversation.turns]
    assert said == [
        ("user", ((0, 0),)),
        ("assistant", ()),
        ("user", ((1, 0),)),
        ("assistant", ()),
        ("user", ()),
        ("assistant", ()),
    ]
    # the same turns in another conversation: what was said before is part of the prompt
    alone = Conversation(answerer, 8)
    assert alone.ask("Which?").answer != third.answer


def test_a_line_at_a_time_with_commands_and_mistakes(
    world: Path, answerer: Answerer, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"/video {world}/red.mp4",
        "What is shown?",
        "/image /no/such/file.png",
        "",
        "/what",
        "And now?",
        "/new",
        "Hello",
        "/quit",
        "never asked",
    ]
    failed = talk(Conversation(answerer, 4), lines, as_json=True)
    told = capsys.readouterr()
    replies = [json.loads(line) for line in told.out.splitlines()]
    assert [reply["question"] for reply in replies] == ["What is shown?", "And now?", "Hello"]
    assert [len(reply["looked"]) for reply in replies] == [1, 0, 0]
    assert "/no/such/file.png: no such file; give --image FILE" in told.err
    assert "/video FILE" in told.err
    assert failed == 1
    talk(Conversation(answerer, 4), [f"/video {world}/red.mp4", "What?"], as_json=False)
    assert "looked at 6 frames of 64x64 of red.mp4: 0.0s, 0.5s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("video", "blue.png", "an image, not a video; give it as --image"),
        ("image", "red.mp4", "a video, not an image; give it as --video"),
        ("image", "broken.png", "broken.png: MEDIA_"),
        ("video", "none.mp4", "no such file"),
    ],
)
def test_what_cannot_be_shown_is_explained(
    world: Path, answerer: Answerer, kind: str, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Conversation(answerer).show(kind, world / name)


def test_one_question_from_the_command_line(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", f"{world}/model", "--video", f"{world}/red.mp4", "--image"]
    words += [f"{world}/blue.png", "--question", "Which?", "--tokens", "3", "--json"]
    arguments = command_line.parser().parse_args(["chat", *words])
    command_line.chat(arguments)
    found = json.loads(capsys.readouterr().out)
    assert [medium["name"] for medium in found["looked"]] == ["red.mp4", "blue.png"]
    # without a question the lines of the input are answered
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\nAgain\n"))
    arguments = command_line.parser().parse_args(["chat", *words[:2], "--tokens", "2", "--json"])
    command_line.chat(arguments)
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert list(lines_of_a_person()) == []


def test_a_character_of_several_tokens_is_told_whole(answerer: Answerer) -> None:
    codec, told = answerer.rules.codec, []
    ids = codec.encode("é 漢 ok")
    pieces = Pieces(codec, codec.token_id(IM_END), told.append)

    class One:
        def __init__(self, id_: int) -> None:
            self.id_ = id_

        def flatten(self) -> Any:
            return self

        def tolist(self) -> list[int]:
            return [self.id_]

    pieces.put(One(0))  # the prompt
    for id_ in ids:
        pieces.put(One(id_))
    pieces.end()
    assert "".join(told) == "é 漢 ok"
    assert not any("\ufffd" in piece for piece in told)


# The page ------------------------------------------------------------------------


def test_the_page_answers_with_frames_and_tells_mistakes(world: Path, answerer: Answerer) -> None:
    conversation = Conversation(answerer, 6)
    asked = {"text": "What is shown?", "files": [f"{world}/red.mp4", f"{world}/blue.png"]}
    *coming, (said, frames, state, entry) = web.answered(conversation, asked, [])
    assert [turn["role"] for turn in said] == ["user", "assistant"]
    assert said[1]["content"].strip() == conversation.turns[1].text
    assert len(coming) > 1
    assert [text for _, text in frames][-1] == "0.0s blue.png"
    assert (len(frames), state, entry) == (7, conversation, {"text": "", "files": []})
    wrong = {"text": "And?", "files": [f"{world}/broken.png"]}
    *_, (said, _, _, _) = web.answered(conversation, wrong, said)
    assert "broken.png: MEDIA_" in said[-1]["content"]


def test_a_mistake_of_the_model_is_raised_where_the_page_waits(answerer: Answerer) -> None:
    class Wrong(Conversation):
        def ask(self, *_: Any) -> Any:
            raise UserError("too long")

    with pytest.raises(UserError, match="too long"):
        list(web.pieces(Wrong(answerer), "?"))


def test_without_gradio_it_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    arguments = command_line.parser().parse_args(["chat", "--model", "x", "--web"])
    with pytest.raises(UserError, match=r"gradio, which is not installed; pip install .*\[web\]"):
        command_line.chat(arguments)


def test_one_question_by_the_function(world: Path) -> None:
    reply = chat(world / "model", "image", world / "blue.png", "What?")
    assert reply.looked[0].kind == "image"


def test_a_question_that_cannot_be_asked_takes_its_media_along(
    answerer: Answerer, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = Conversation(answerer, 4)
    conversation.show("image", world / "blue.png")
    assert conversation.ask("What is shown?").looked
    conversation.show("video", world / "red.mp4")
    with monkeypatch.context() as patch:
        patch.setattr("train.chat.conversation.render", refusing)
        with pytest.raises(UserError, match="too long"):
            conversation.ask("And this?")
    assert not conversation.ask("And now?").looked and len(conversation.turns) == 4


def refusing(*_: object, **__: object) -> None:
    raise UserError("too long")


def test_a_reply_may_be_broken_off(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = Conversation(answerer, 4)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("train.chat.terminal.reply", interrupted)
        assert talk(conversation, ["What?"], as_json=False) == 0
    assert not conversation.turns
