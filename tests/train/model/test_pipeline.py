"""`pipeline("image-text-to-text")` of transformers, in the forms that it documents."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline
from transformers.pipelines import check_task

from shards.errors import UserError
from tests.support.chat.tiny_chat import asked, by_hand, chat_model, chat_processor, frames, picture
from train.model import register

STEPS = 3
IMAGE = {"type": "image", "image": picture()}
VIDEO = {"type": "video", "video": frames(), "seconds": [*range(6)]}
SHORT = {"max_new_tokens": STEPS, "return_full_text": False}
MARKED = "<|vision_start|><|image_pad|><|vision_end|>which digit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register()
    where = tmp_path_factory.mktemp("model")
    chat_model().save_pretrained(where)
    chat_processor(where).save_pretrained(where)
    picture().save(where / "p.png")
    return where


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return pipeline("image-text-to-text", model=str(folder), device="cpu")


@pytest.fixture(scope="module")
def expected(pipe: Any) -> dict[str, str]:
    """Answers computed by hand: to a conversation, and to a prompt in the template already."""

    def answer(inputs: Any) -> str:
        return pipe.tokenizer.decode(by_hand(pipe.model, inputs, STEPS))

    def talked(talk: Any, **options: Any) -> str:
        return answer(pipe.processor.apply_chat_template(talk, tokenize=True, **options))

    begun = [{"role": "assistant", "content": "it is"}]
    return {
        "image": talked(asked(IMAGE), add_generation_prompt=True),
        "video": talked(asked(VIDEO), add_generation_prompt=True),
        "text": talked(asked(), add_generation_prompt=True),
        "begun": talked([*asked(IMAGE), *begun], continue_final_message=True),
        "prompt": answer(pipe.processor(text=MARKED, images=picture())),
        "bare": answer(pipe.processor(text="which digit")),
    }


def said(found: Any) -> list[str]:
    return [(one if isinstance(one, dict) else one[0])["generated_text"] for one in found]


FORMS: dict[str, tuple[Callable[[Any, Path], Any], list[str]]] = {
    "a chat": (lambda pipe, _: pipe(text=asked(IMAGE), **SHORT), ["image"]),
    "a path": (
        lambda pipe, at: pipe(asked({"type": "image", "path": str(at / "p.png")}), **SHORT),
        ["image"],
    ),
    "chats": (lambda pipe, _: pipe([asked(IMAGE), asked()], **SHORT), ["image", "text"]),
    "a film": (lambda pipe, _: pipe(asked(VIDEO), **SHORT), ["video"]),
    "a begun answer": (
        lambda pipe, _: pipe(
            [*asked(IMAGE), {"role": "assistant", "content": [{"type": "text", "text": "it is"}]}],
            **SHORT,
        ),
        ["begun"],
    ),
    "picture and text": (lambda pipe, _: pipe(picture(), text=MARKED, **SHORT), ["prompt"]),
    "lists": (
        lambda pipe, at: pipe(
            [picture(), str(at / "p.png")], text=[MARKED, MARKED], **SHORT
        ),
        ["prompt", "prompt"],
    ),
    "a dictionary": (
        lambda pipe, _: pipe({"images": picture(), "text": "which digit"}, **SHORT),
        ["prompt"],
    ),
    "text alone": (lambda pipe, _: pipe(text="which digit", **SHORT), ["bare"]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_pipeline_answers_in_every_form(
    pipe: Any, folder: Path, expected: dict[str, str], form: str
) -> None:
    call, names = FORMS[form]
    assert said(call(pipe, folder)) == [expected[name] for name in names]


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Reply(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.asked = True  # type: ignore[attr-defined]
            self.send_response(404)
            self.end_headers()

    found = HTTPServer(("127.0.0.1", 0), Reply)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def test_an_address_in_a_chat_is_judged_by_the_door(pipe: Any, server: HTTPServer) -> None:
    link = f"http://127.0.0.1:{server.server_port}/p.png"
    for kind in ("image", "video"):
        with pytest.raises(UserError, match="FETCH_ADDRESS_REFUSED"):
            pipe(asked({"type": kind, "url": link}), **SHORT)
    assert not hasattr(server, "asked")


def test_options_of_a_call_reach_the_processor(pipe: Any) -> None:
    with pytest.raises(TypeError, match=r"'num_frame'; .* did you mean 'num_frames'"):
        pipe(asked(VIDEO), processor_kwargs={"num_frame": 2}, **SHORT)


def test_a_pipeline_that_pads_by_itself_is_refused(pipe: Any) -> None:
    """It pads tensors by their names, and would tear what is shown apart."""
    with pytest.raises(TypeError, match="forward needs slots as the processor makes them"):
        pipe([asked(IMAGE), asked(IMAGE)], batch_size=2, **SHORT)


def test_transformers_has_no_task_for_videos_alone() -> None:
    """When it has, docs/model.md has to show it."""
    with pytest.raises(KeyError, match="video-text-to-text"):
        check_task("video-text-to-text")
