"""Names that differ as systems differ: Unicode form, case, kind of slash, code page.

A Mac writes é as two signs, Windows writes `\\` and looks at no case, old zips do not say in which
code page their names are. Names are near if they are equal without that; what is joined is told.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

CODE_PAGES = ("utf-8", "gbk", "shift_jis", "cp437")


def folded(name: str) -> str:
    """What is left of a name without Unicode form, case, kind of slash, and empty parts."""
    parts = (part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    text = "/".join(parts)
    if text.isascii():
        return text.lower()
    # NFD, casefold, NFD again: canonical caseless matching (Unicode standard, D145)
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


def readings(name: str) -> Iterator[str]:
    """The name, and what its bytes spell in other code pages.

    The bytes are those that were no UTF-8, or those that were read as cp437, as zips' names are.
    """
    yield name
    if name.isascii():
        return
    try:
        data = name.encode("utf-8", "surrogateescape")
        # zipfile decodes names as cp437 where their flag does not say UTF-8: back to the bytes
        data = data if _is_foreign(name) else name.encode("cp437")
    except UnicodeEncodeError:
        return
    for page in CODE_PAGES:
        with suppress(UnicodeDecodeError):  # not every page knows every byte
            yield data.decode(page)


def _is_foreign(name: str) -> bool:
    return any("\udc80" <= sign <= "\udcff" for sign in name)


def near_index(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """The names by every folded reading of theirs; small, for a source may have millions."""
    index: dict[str, tuple[str, ...]] = {}
    for name in names:
        # a name may be read in several code pages: it is near under each
        for key in {folded(reading) for reading in readings(name)}:
            index[key] = (*index.get(key, ()), name)
    return index


def told(name: str, beside: str) -> str:
    """A name for people, who see no difference of Unicode form: then its signs are spelled out."""
    alike = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", beside)
    return ascii(name) if alike else repr(name)


def suffixes(path: str) -> Iterator[str]:
    """Every name that the path ends with, part by part: a/b/c, b/c, c."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))
