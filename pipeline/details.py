"""Details of refusals as sentences for people, whatever program or server said them first.

Left out are what only this machine knows (folders, addresses in memory), what nobody may read (the
query of a signed address), and what says nothing (Python's spelling of bytes, lists of all codecs).
"""

from __future__ import annotations

import re

_UNKNOWN = "its first bytes are of no kind that is read here"
_ASTRAY = "what it holds is not what its headers say"
_RULES = tuple(
    (re.compile(pattern), said)
    for pattern, said in (
        # Pillow on an unknown format, and on one that is not allowed here
        (r"starts with b(?:'[^']*'|\"[^\"]*\")?\.*", _UNKNOWN),
        (r"cannot identify image file <.*?>", "no picture that is read here"),
        (r"\bnot one of [A-Z][A-Z0-9]+(?:, [A-Z0-9]+)+", "a kind of picture that is not read here"),
        (r"not on whitelist '.*", "is not one that is read here"),
        # ffmpeg's prefixes and addresses in memory
        (r"<[\w.]+ object at 0x[0-9a-f]+>", "it"),
        (r"\[[\w, ]+ @ 0x[0-9a-f]+\] ?", ""),
        # the query of a signed address is a secret
        (r"(\w[\w+.-]*://[^\s?#]+)[?#][^\s:]*", r"\1"),
        (r"(?<![\w.:/])(?:file:)?/(?:[^/\s:'\"]+/)+", ""),
        (r"Invalid (?:argument|data found when processing input)", _ASTRAY),
        (r"\bb(?:'[^']*'|\"[^\"]*\")", "bytes that are no text"),
    )
)  # fmt: skip
"""(what machines say, what people are told), in the order in which they are replaced."""


def sentence(detail: str) -> str:
    """The detail as people are told it; one that holds nothing of the kind stays as it is."""
    for pattern, said in _RULES:
        detail = pattern.sub(said, detail)
    return detail.strip()
