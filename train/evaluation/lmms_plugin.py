"""lmms-eval's plugin: `lmms-eval eval --model slowfast --model_args pretrained=OUT/model ...`.

lmms-eval finds MANIFEST by the entry point of pyproject.toml (group lmms_eval.models). Tasks hand
over paths and pictures; which frames are shown, and their times, is the saved model's own rule, so
that scores of its tables and of `train evaluate` are of the same pixels.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from rich.progress import Progress

from shards.errors import UserError
from train.evaluation.chat_questions import cut, new_tokens, questions

NEW_TOKENS = 128
"""Of a reply, where a task does not say."""


class Request(Protocol):
    """An lmms_eval.api.instance.Instance of a chat task."""

    args: tuple[Any, ...]
    """Context, document -> messages, generation options, document's number, task, split."""


class SlowFast(lmms):  # type: ignore[misc]  # untyped, and not installed here
    """A saved model as lmms-eval drives it: one process, greedy replies, `batch_size` at a time."""

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        precision: str = "",
        relevance: str = "",
        pathways: str = "",
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """`pretrained` is a folder OUT/model; the others are as for `train evaluate`.

        UserError for a batch size, device or number of processes that cannot be honoured.
        """
        # here: lmms-eval loads every plugin's module to list models
        from train.evaluation.answerer import Answerer

        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("several processes: run lmms-eval with one, or `train evaluate`")
        if not str(batch_size).isdigit() or max_batch_size is not None:
            raise UserError(
                f"batch_size={batch_size}: give a number; automatic sizes are not known"
            )
        self.batch_size = int(batch_size)
        self.answerer = Answerer(
            Path(pretrained),
            Path(relevance) if relevance else None,
            precision=precision,
            batch=self.batch_size,
        )
        self.pathways = pathways or self.answerer.rules.layout.pathways
        on = self.answerer.model.device.type
        if device is not None and not device.startswith(on):
            raise UserError(f"device={device}: the model is on {on}; leave it out")

    def generate_until(self, requests: Sequence[Request]) -> list[str]:
        """The reply to each request, in order."""
        replies: list[str] = []
        with Progress() as bar:
            task = bar.add_task("asked", total=len(requests))
            # tasks differ in how long their replies may be
            for length, same in itertools.groupby(requests, key=_length):
                asked = list(same)
                for start in range(0, len(asked), self.batch_size):
                    replies += self._replies(asked[start : start + self.batch_size], length)
                    bar.update(task, completed=len(replies))
        return replies

    def _replies(self, requests: Sequence[Request], length: int) -> list[str]:
        conversations = []
        for request in requests:
            _, messages_of, _, number, task, split = request.args
            conversations.append(messages_of(self.task_dict[task][split][number]))
        asked = questions(conversations, self.answerer.profile)
        said = self.answerer.answer(asked, self.pathways, length)
        stops = [request.args[2].get("until") for request in requests]
        return [cut(one.text, stop) for one, stop in zip(said, stops, strict=True)]

    def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:  # noqa: ARG002
        """lmms-eval gives chat models tasks of replies only."""
        raise UserError("tasks of log-likelihoods are not answered; choose others")

    def generate_until_multi_round(self, requests: Any) -> list[str]:  # noqa: ARG002
        """The model is asked one question at a time."""
        raise UserError("tasks of several rounds are not answered; choose others")


def _length(request: Request) -> int:
    return new_tokens(request.args[2], NEW_TOKENS)


MANIFEST = ModelManifest(
    model_id="slowfast",
    chat_class_path="train.evaluation.lmms_plugin.SlowFast",
)
