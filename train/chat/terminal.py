"""The conversation in a terminal, or line by line from a pipe, as text or as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from shards.errors import UserError
from train.chat.conversation import Conversation, Reply

HELP = """Ask, or say
/video FILE   show a video with the next question
/image FILE   show an image with the next question
/new          forget everything
/quit         end, as does the end of the input
"""


def lines_of_a_person() -> Iterator[str]:
    """What is typed, or piped in; a person sees when it is their turn."""
    if not sys.stdin.isatty():
        # piped lines are answered without a prompt between them
        yield from sys.stdin
        return
    sys.stdout.write(HELP)
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return


def talk(conversation: Conversation, lines: Iterable[str], *, as_json: bool) -> int:
    """Answer each line in turn; a mistake is told, and the conversation goes on. How many were
    told; Ctrl-C ends a reply, of which nothing is kept."""
    failed = 0
    for line in lines:
        # a file's name may hold spaces: all behind the command is the name
        command, _, rest = line.strip().partition(" ")
        try:
            if command == "/quit":
                break
            if command == "/new":
                conversation = Conversation(conversation.answerer, conversation.tokens)
            elif command in ("/video", "/image"):
                conversation.show(command[1:], Path(rest.strip()))
            elif command.startswith("/"):
                # whoever reads JSON from the pipe gets nothing else there
                (sys.stderr if as_json else sys.stdout).write(HELP)
            elif command:
                reply(conversation, line.strip(), as_json=as_json)
        except UserError as error:
            # told and not raised: one bad line of a script does not end the others
            failed += 1
            sys.stderr.write(f"{error}\n")
        except KeyboardInterrupt:
            sys.stdout.write("\n")
    return failed


def reply(conversation: Conversation, question: str, *, as_json: bool) -> Reply:
    """One reply: as it comes, then what was looked at; or one JSON object."""
    if as_json:
        answered = conversation.ask(question)
        sys.stdout.write(json.dumps({"question": question, **asdict(answered)}) + "\n")
        # whoever reads the pipe gets each reply when it is there
        sys.stdout.flush()
        return answered
    answered = conversation.ask(question, told)
    sys.stdout.write("\n")
    for medium in answered.looked:
        width, height = medium.size
        times = f": {', '.join(medium.times)}" if medium.kind == "video" else ""
        count = f"{len(medium.times)} frames" if medium.kind == "video" else "an image"
        sys.stdout.write(f"looked at {count} of {width}x{height} of {medium.name}{times}\n")
    return answered


def told(text: str) -> None:
    """A piece of a reply, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
