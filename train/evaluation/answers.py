"""What a reply says, and whether it is right: rules that a benchmark's file names.

    reply ─► read (letter | text) ─► compare (exact | contains | vqa | number | mmmu) ─► 0 .. 1

No rule asks another model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase

from pipeline.sources.benchmarks.item import BenchmarkItem

_MARKS = ".,;:!?\"'`()[]{}<>«»“”‘’„‚…。，、！？"
"""Marks of sentences and quotation: what stands at a word's end without being part of it."""
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")
_LONE = re.compile(r"\W*([A-Za-z])\W*")
_FIRST = re.compile(r"\W*\(?([A-Z])(?:[).:]|\s*$)")
_SAID = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*[*_\"'(]*([A-Z])\b(?!')", re.I)
_BRACKETED = re.compile(r"\(([A-Z])\)")
_BARE = re.compile(r"(?<![A-Za-z'])(?:[B-Z](?![A-Za-z'])|A(?![A-Za-z']|\s+(?!or\b|and\b)[a-z]))")
"""A capital that stands alone; "A" before a word is an article."""


def normalise_answer(text: str) -> str:
    """What exact match compares: NFKC, case folded, single spaces, no marks at the ends of words.

    Numbers keep signs, points and colons, and a word that is nothing but marks stays as it is, so
    that nothing becomes equal by becoming empty.
    """
    # compatibility forms first: full-width letters and ligatures become plain ones
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(_bare_word(word) for word in words)


def _bare_word(word: str) -> str:
    right = word.rstrip(_MARKS)
    left = right.lstrip(_MARKS)
    # ".5" is a number whose point is no mark
    point = right[: len(right) - len(left)].endswith(".") and left[:1].isdigit()
    return f".{left}" if point else left or word


def read_letter(reply: str, options: Sequence[str]) -> str:
    """The option that a reply names, as its letter; "" where it names none, or several.

    By its letter: alone, in front (`B. seven`), behind "answer", "option" or "choice", in brackets,
    or as the one capital that stands alone. Else by its text.
    """
    letters = ascii_uppercase[: len(options)]
    # from the surest sign to the least: a lone letter, a letter in front, a letter that is
    # announced
    if (lone := _LONE.fullmatch(reply)) and lone[1].upper() in letters:
        return lone[1].upper()
    if (first := _FIRST.match(reply)) and first[1] in letters:
        return first[1] if set(_BRACKETED.findall(reply)) <= {first[1]} else ""
    for pattern in (_SAID, _BRACKETED):
        named = [letter for letter in pattern.findall(reply) if letter in letters]
        if named:
            # the last announcement counts: replies think aloud before they answer
            return named[-1] if len(set(named)) == 1 or pattern is _SAID else ""
    # no letter: an option whose text is the reply
    said = normalise_answer(reply)
    same = [letter for letter, text in zip(letters, options, strict=True)
            if normalise_answer(text) == said]  # fmt: skip
    if len(same) == 1:
        return same[0]
    # one capital that stands alone, and no article
    bare = {letter for letter in _BARE.findall(reply) if letter in letters}
    return bare.pop() if len(bare) == 1 else ""


def exact(reply: str, item: BenchmarkItem) -> float:
    """1 where the normalised reply is one of the normalised answers."""
    said = normalise_answer(reply)
    return float(any(said == normalise_answer(answer) for answer in item.answers))


def yes_or_no(reply: str, item: BenchmarkItem) -> float:
    """TempCompass: the word that the reply begins with, or exact match where it is neither."""
    first_word = normalise_answer(reply).split()[:1]
    word = [candidate for candidate in first_word if candidate in ("yes", "no")]
    return exact(word[0] if word else reply, item)


def contains(reply: str, item: BenchmarkItem) -> float:
    """OCRBench: any answer stands in the reply, in lower case; formulas without white space."""
    # formulas of HME100k differ in spaces only
    formula = item.groups.get("dataset") == ("HME100k",)
    clean = _without_spaces if formula else _on_one_line
    return float(any(0 < len(text) and text in clean(reply) for text in map(clean, item.answers)))


def _on_one_line(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _without_spaces(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


_ARTICLES = ("a", "an", "the")
_DIGITS = dict(zip(
    "none zero one two three four five six seven eight nine ten".split(),
    "0 0 1 2 3 4 5 6 7 8 9 10".split(),
    strict=True,
))  # fmt: skip
_VQA_MARKS = re.compile(r"[;/\[\]\"{}()=+\\_\-><@`,?!]")


def vqa(reply: str, item: BenchmarkItem) -> float:
    """VQA accuracy (Antol et al., 2015): the mean over people of min(1, agreeing others / 3).

    Texts are compared without articles and marks, number words as digits, and apostrophes left
    out where the published rule puts missing ones in. As published, signs are marks: `-5` is `5`.
    Other than published, a reply of nothing but marks and articles is no answer.
    """
    # leave-one-out, as the authors score: each person's answer is judged by the other nine
    said = _vqa_text(reply)
    if not said:
        return 0.0
    others = [_vqa_text(answer) for answer in item.answers]
    agreeing = [sum(text == said for text in others) - (own == said) for own in others]
    return sum(min(1.0, count / 3) for count in agreeing) / max(len(others), 1)


def _vqa_text(text: str) -> str:
    # points and commas within numbers stay
    clean = re.sub(r"(?<!\d)\.|\.(?!\d)", "", text.lower().replace("\n", " ").strip())
    clean = _VQA_MARKS.sub("" if re.search(r"\d,\d", clean) else " ", clean).replace("'", "")
    words = [_DIGITS.get(word, word) for word in clean.split()]
    return " ".join(word for word in words if word not in _ARTICLES)


def number(reply: str, item: BenchmarkItem) -> float:
    """MathVista: the last number of the reply, rounded as the answer is; else exact match."""
    if item.number not in ("integer", "float"):
        return exact(reply, item)
    said = numbers_in(reply)
    if not said:
        return 0.0
    # rounded as precisely as the answer is published
    places = 0 if item.number == "integer" else item.precision
    return float(any(round(said[-1], places) == value
                     for answer in item.answers for value in numbers_in(answer)))  # fmt: skip


def numbers_in(text: str) -> list[float]:
    """Every number of a text, with its sign; thousands may be parted by commas."""
    numbers = [match[0] for match in _NUMBER.finditer(text)]
    # signs and exponents without digits are no numbers
    return [float(number.replace(",", "")) for number in numbers if number.strip("+-eE.")]


def mmmu(reply: str, item: BenchmarkItem) -> float:
    """MMMU, open questions: an answer's number is in the reply, or its words are."""
    said = normalise_answer(reply)
    values = set(numbers_in(reply))
    for answer in item.answers:
        wanted = numbers_in(answer)
        is_number = len(wanted) == 1 and _NUMBER.fullmatch(answer.strip())
        # whole words only: "no" is not in "snow"
        words = re.compile(rf"(?<!\w){re.escape(normalise_answer(answer))}(?!\w)")
        if (wanted[0] in values) if is_number else words.search(said):
            return 1.0
    return 0.0


RULES: Mapping[str, Callable[[str, BenchmarkItem], float]] = {
    "exact": exact,
    "yes_or_no": yes_or_no,
    "contains": contains,
    "vqa": vqa,
    "number": number,
    "mmmu": mmmu,
}
"""How a reply of free text is compared with the published answers."""


def credit(reply: str, item: BenchmarkItem, rule_name: str) -> float:
    """0 to 1 for a reply: of a choice by its letter, of free text by the rule."""
    if item.options:
        return float(read_letter(reply, item.options) in item.answers)
    return RULES[rule_name](reply, item)
