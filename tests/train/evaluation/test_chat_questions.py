"""Messages of an evaluation harness as questions; lmms-eval itself: `python -m benchmarks lmms`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.errors import UserError
from shards.profile import Profile
from tests.support.small_world import film
from train.data.user_media import see_files
from train.evaluation.answerer import placed
from train.evaluation.chat_questions import cut, new_tokens, questions, wording


def user(*contents: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(contents)}]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def shown(kind: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"type": kind, "url": value, **more}


def picture(colour: int) -> Image.Image:
    return Image.fromarray(np.full((64, 96, 3), colour, np.uint8))


def test_media_stand_where_the_messages_have_them() -> None:
    parts = (shown("image", "a.png"), text("Left: "), shown("image", "b.png"), text(" or right?"))
    assert wording(user(*parts)).text == "Left: <image 2> or right?"


def test_a_path_and_a_picture_in_memory_are_decoded_as_files_are(tmp_path: Path) -> None:
    profile = Profile()
    video = tmp_path / "v.mp4"
    film(video, 1)
    still = tmp_path / "still.png"
    picture(90).save(still)
    asked = questions(
        [
            user(shown("video", str(video)), text("a?")),
            user(shown("image", picture(90)), text("b?")),
        ],
        profile,
    )
    alone = see_files([(video, "video", "v"), (still, "image", "s")], profile)
    assert [one.text for one in asked] == ["a?", "b?"]
    assert [one.seen[0].jpegs for one in asked] == [one.jpegs for one in alone]
    # what no mark names stands before the text
    assert placed(asked[0])[0].media == ((0, 0),)


@pytest.mark.parametrize("form", ["content", "value"])
def test_a_span_is_cut_out(tmp_path: Path, form: str) -> None:
    video = str(tmp_path / "v.mp4")
    film(Path(video), 1)
    (whole,) = questions([user(shown("video", video), text("?"))], Profile())
    part = shown("video", video, start_time=0.5, end_time=1.0)
    if form == "value":
        part = shown("video", {"path": video, "video_start": 0.5, "video_end": 1.0})
    (cut_out,) = questions([user(part, text("?"))], Profile())
    assert 0 < len(cut_out.seen[0].jpegs) < len(whole.seen[0].jpegs)


def test_what_cannot_be_asked_is_named(tmp_path: Path) -> None:
    for messages, said in (
        ([*user(text("a")), {"role": "assistant", "content": [text("b")]}], "user, assistant"),
        (user({"type": "audio", "url": "a.wav"}), "'audio'"),
        (user(shown("image", 3)), "as int"),
        (user(shown("video", "v.mp4", start_time=1.0)), "without end"),
        (user(shown("image", str(tmp_path / "none.png"))), "none.png"),
    ):
        with pytest.raises(UserError, match=said):
            questions([messages], Profile())


def test_replies_are_greedy_or_refused() -> None:
    given = {
        "max_new_tokens": 16,
        "temperature": 0,
        "top_p": 1.0,
        "num_beams": 1,
        "do_sample": False,
    }
    assert new_tokens(given, 128) == 16
    assert new_tokens({"until": ["\n"]}, 128) == 128
    for name, value in (
        ("temperature", 0.7),
        ("num_beams", 4),
        ("min_p", 0.1),
        ("do_sample", True),
    ):
        with pytest.raises(UserError, match=f"{name}={value}"):
            new_tokens(given | {name: value}, 128)


def test_a_reply_ends_at_the_first_stop() -> None:
    assert cut("one\n\ntwo. three", ["\n\n", ". "]) == "one"
    assert cut(" one ", None) == "one"
    assert cut("one two", "two") == "one"
