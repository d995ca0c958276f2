"""The conversation in a browser, on this machine alone: drop a video or images, ask, see frames.

Gradio is an optional dependency: `pip install 'slowfast-mix[web]'`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from shards.errors import UserError
from train.chat.conversation import REPLY_TOKENS, Conversation
from train.evaluation.answerer import Answerer

LOOPBACK = "127.0.0.1"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def gradio() -> Any:
    """The library; UserError where it is not installed."""
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            "--web needs gradio, which is not installed; pip install 'slowfast-mix[web]'"
        ) from error
    return gradio


def serve(answerer: Answerer, tokens: int) -> None:
    """Serve the page on the first free port from 7860 on until it is interrupted."""
    # loopback and no share link: media and questions stay on this machine
    page(gradio(), answerer, tokens).launch(server_name=LOOPBACK, share=False)


def page(gr: Any, answerer: Answerer, tokens: int = REPLY_TOKENS) -> Any:
    """The page as a Gradio app: chat on the left, the frames that were seen on the right."""
    # Gradio reports use to its makers unless told not to
    with gr.Blocks(title="slowfast-mix", analytics_enabled=False) as blocks:
        # a conversation for each open page: State is per session
        state = gr.State(None)
        with gr.Row():
            with gr.Column(scale=3):
                history = gr.Chatbot(label="conversation")
                entry = gr.MultimodalTextbox(
                    file_count="multiple",
                    placeholder="drop a video or images, and ask",
                    show_label=False,
                )
                forget = gr.Button("new conversation")
            with gr.Column(scale=2):
                # narrow captions are cut at their end: the time stands in front
                seen = gr.Gallery(label="frames that the model saw, with their times", columns=3)

        def turn(asked: Any, said: Any, talk: Any) -> Iterator[tuple[Any, ...]]:
            yield from answered(talk or Conversation(answerer, tokens), asked, said)

        entry.submit(turn, [entry, history, state], [history, seen, state, entry])
        forget.click(lambda: ([], [], None), None, [history, seen, state])
    return blocks


def answered(
    talk: Conversation, submitted: dict[str, Any], said: list[dict[str, Any]]
) -> Iterator[tuple[Any, ...]]:
    """What the page shows as the reply comes: the turns, the frames, the state, an empty entry."""
    files = [Path(file) for file in submitted.get("files") or []]
    question = str(submitted.get("text") or "")
    shown = [f"[{path.name}]" for path in files]
    said = [*said, {"role": "user", "content": " ".join([*shown, question or "(nothing asked)"])}]
    # one dictionary that grows, shown again with every piece
    reply = {"role": "assistant", "content": ""}
    try:
        # by suffix, as a person would; what opens it judges the bytes
        for path in files:
            talk.show("image" if path.suffix.lower() in PICTURES else "video", path)
        for piece in pieces(talk, question) if question else ():
            reply["content"] += piece
            yield [*said, reply], [], talk, {"text": "", "files": []}
    except UserError as error:
        reply["content"] = str(error)
    yield [*said, reply], list(talk.frames()), talk, {"text": "", "files": []}


def pieces(talk: Conversation, question: str) -> Iterator[str]:
    """The reply as it comes: generated in a thread of its own, whose mistake is raised here."""
    pieces_queue: SimpleQueue[str | BaseException | None] = SimpleQueue()

    def ask() -> None:
        try:
            talk.ask(question, pieces_queue.put)
            pieces_queue.put(None)
        # whatever it is, the page's generator raises it: a thread would only print it, and the page
        # wait
        except BaseException as error:
            pieces_queue.put(error)

    # daemon: a page that is closed must not keep the process from ending
    Thread(target=ask, daemon=True).start()
    while (piece := pieces_queue.get()) is not None:
        if isinstance(piece, BaseException):
            raise piece
        yield piece
