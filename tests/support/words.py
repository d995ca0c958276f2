"""The words of a text, by a plain second definition."""

from __future__ import annotations

import re
import unicodedata


def said(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFC", text).lower())
