"""Files that were split for publishing, by their names: which belong together, in which order.

    x.tar.gz_part_aa  x.tar.part1  x.zip.001  x.tar.ab  x.tar-00000-of-00012

The parts of one file have one spelling and a sequence without gaps from its first on: a, 0 or 1,
as `split` counts. A file that is none of a sequence is a whole one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.names import in_order
from shards.errors import UserError

KIND = re.compile(
    r"\.(?P<kind>tar\.gz|tgz|tar|zip)"
    r"((?P<before>[._-]?part[._-]?|[._-](?=[a-z]{2}$|[0-9]))"
    r"(?P<tag>[a-z]+|[0-9]+)(?P<of>[._-]?of[._-]?[0-9]+)?)?$"
)
"""A name in lower case: of a whole archive, or of one part of it."""
_PACKED = {"bz": "bzip2", "gz": "gzip", "lz": "lzip", "xz": "xz", "br": "brotli"}


@dataclass(frozen=True, slots=True)
class _Part:
    """One file: `tag` is what tells it from the other parts, `of` says how many they are, or ""."""

    name: str
    tag: str
    of: str

    def beside(self, tag: str) -> str:
        """The name of the part that has this tag."""
        at = len(self.name) - len(self.tag + self.of)
        return self.name[:at] + tag + self.name[at + len(self.tag) :]


def archives(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The archives that these files make up, each as its parts in order; whole ones are alone.

    UserError names the part that is missing.
    """
    groups: dict[tuple[str, str, bool, str], list[_Part]] = defaultdict(list)
    # in the order of their numbers, so that each group is in order
    for name in in_order(names):
        match = KIND.search(name.lower())
        if match is None:
            raise UserError(f"{name}: not a .tar, .tar.gz or .zip, nor a part of one")
        before, tag, of = (match[group] or "" for group in ("before", "tag", "of"))
        # parts of one file agree in all but their tag
        style = name[: match.end("kind")], before, tag.isdigit(), of
        groups[style].append(_Part(name, tag, of))
    return [_whole(parts) for parts in groups.values()]


def _whole(parts: Sequence[_Part]) -> tuple[str, ...]:
    """The names of parts in order; UserError unless they are all there is of one file."""
    first, last = parts[0], parts[-1]
    if first.tag in _PACKED and len(parts) == 1:
        raise UserError(f"{first.name}: packed by {_PACKED[first.tag]}; unpack it, or use gzip")
    # the sequence must begin with its first: a, 0 or 1
    if first.tag and not _is_first(first.tag):
        begin = first.beside("".join("a" if sign.isalpha() else "0" for sign in first.tag))
        raise UserError(
            f"{begin}: missing, the parts begin with {first.name}; parts of a file are named "
            "without gaps from a, 0 or 1 on"
        )
    for before, following in pairwise(parts):
        _check_next(before, following)
    count = re.sub("[^0-9]", "", first.of)
    if count and len(parts) != int(count):
        raise UserError(
            f"{first.name}: of {int(count)} parts {len(parts)} are here, up to {last.name}; name "
            "them all"
        )
    return tuple(part.name for part in parts)


def _is_first(tag: str) -> bool:
    return int(tag) in (0, 1) if tag.isdigit() else set(tag) == {"a"}


def _check_next(before: _Part, following: _Part) -> None:
    behind = _successors(before.tag)
    if following.tag.isdigit() and int(following.tag) == int(before.tag):
        raise UserError(f"{before.name} and {following.name} are the same part; name one of them")
    # leading zeros do not count: part9, part10
    if following.tag.lstrip("0") not in [tag.lstrip("0") for tag in behind]:
        missing = before.beside(behind[0]) if behind else "a part"
        raise UserError(
            f"{missing}: missing between {before.name} and {following.name}; name all parts"
        )


def _successors(tag: str) -> list[str]:
    """What may follow: the next of its length; and what `split` goes on with where it widens its
    tags: yz, zaaa and 89, 9000.
    """
    # the carry of `split`: the last digit that is not the highest goes up by one
    first, last = ("0", "9") if tag.isdigit() else ("a", "z")
    head = tag.rstrip(last)
    tags = [head[:-1] + chr(ord(head[-1]) + 1) + first * (len(tag) - len(head))] if head else []
    if not head and tag.isdigit():
        tags = ["1" + first * len(tag)]
    wide = len(tag) - len(tag.lstrip(last))
    # `split` adds digits where it runs out of names: yz is followed by zaaa
    if tag == last * wide + chr(ord(last) - 1) + last * (wide + 1):
        tags.append(last * (wide + 1) + first * (wide + 3))
    return tags
