"""What counts as the same answer: the page of pairs, letters, and each benchmark's own rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.benchmarks.item import BenchmarkItem
from train.evaluation.answers import credit, normalise_answer, read_letter
from train.evaluation.rules import prompt, prompts
from train.evaluation.statistics import estimate, paired

EQUAL = [
    ("Red.", "red"),
    ("The  RED, one!", "the red one"),
    ("“two”", "two"),
    ("(seven)", "seven"),
    ("1.5.", "1.5"),
    ("-5.", "-5"),
    ("10:30,", "10:30"),
    (".5", ".5"),
    ("ﬁve", "five"),  # NFKC: a ligature
    ("STRASSE", "straße"),
    ("two\nmen", "two men"),
    ("don't", "Don't"),
]
DIFFERENT = [
    ("1.5", "15"),
    ("-5", "5"),
    ("+", "-"),
    ("?", ""),
    ("...", "!"),
    ("10:30", "1030"),
    (".5", "5"),
    ("5%", "5"),
    ("C++", "C"),
    ("C#", "C"),
    ("$5", "5"),
    ("well-known", "wellknown"),
    ("can't", "cant"),
    ("3-1", "31"),
    ("a b", "ab"),
    ("1,5", "15"),
    ("1/2", "12"),
    ("x_1", "x1"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_these_are_the_same_answer(one: str, other: str) -> None:
    assert normalise_answer(one) == normalise_answer(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_these_are_not(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


@given(st.text(max_size=30))
def test_only_white_space_is_normalised_to_nothing(text: str) -> None:
    assert (normalise_answer(text) == "") == (text.split() == [])
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)


OPTIONS = ("six", "seven", "a dog", "It is A")
LETTERS = [
    ("B", "B"),
    ("b", "B"),
    ("(B)", "B"),
    ("B.", "B"),
    ("**B**", "B"),
    ("B. seven", "B"),
    ("B) seven", "B"),
    ("(B) seven", "B"),
    ("B: seven", "B"),
    ("The answer is B", "B"),
    ("The best answer is: (B).", "B"),
    ("Answer: B", "B"),
    ("I think option C is right.", "C"),
    ("First A seems right, but the answer is B.", "B"),
    ("Seven.", "B"),
    ("a dog", "C"),
    ("It is A", "D"),  # the option's own text
    ("It must be B", "B"),
    ("A man is seen from B", "B"),
    ("E", ""),  # no such option
    ("A or B", ""),
    ("(A) and (B)", ""),
    ("A dog walks by.", ""),
    ("I do not know", ""),
    ("", ""),
    ("eight", ""),
]


@pytest.mark.parametrize(("reply", "letter"), LETTERS)
def test_letters_are_read(reply: str, letter: str) -> None:
    assert read_letter(reply, OPTIONS) == letter


def item(*answers: str, **values: object) -> BenchmarkItem:
    return BenchmarkItem(id="1", media=(), question="q", answers=answers, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "reply", "asked", "expected"),
    [
        ("exact", "Yes.", item("yes"), 1),
        ("exact", "yes it is", item("yes"), 0),
        ("yes_or_no", "Yes, it is.", item("yes"), 1),
        ("yes_or_no", "None", item("no"), 0),
        ("contains", "It says CENTRE here", item("centre"), 1),
        ("contains", "x ^ 2", item("x^2", groups={"dataset": ("HME100k",)}), 1),
        ("contains", "x ^ 2", item("x^2", groups={"dataset": ("IIIT5K",)}), 0),
        ("vqa", "The Nokia.", item(*["nokia"] * 10), 1),
        ("vqa", "two", item(*["2"] * 4, *["3"] * 6), 1),
        # two of ten agree: for them one other, for the eight two others
        ("vqa", "dell", item(*["dell"] * 2, *["hp"] * 8), (2 * (1 / 3) + 8 * (2 / 3)) / 10),
        ("vqa", "hp", item(*["dell"] * 10), 0),
        ("vqa", "", item(*["a"] * 10), 0),
        ("vqa", "?", item(*["the"] * 10), 0),
        ("vqa", "+", item(*["-"] * 10), 0),
        ("vqa", "-5", item(*["5"] * 10), 1),  # as published
        ("vqa", "1.5", item(*["15"] * 10), 0),
        ("vqa", "10:30", item(*["1030"] * 10), 0),
        ("contains", "", item("a"), 0),
        ("contains", "a", item(" "), 0),
        ("contains", "15", item("1.5"), 0),
        ("exact", "+", item("-"), 0),
        ("yes_or_no", "", item("no"), 0),
        ("number", "It is 3.", item("3", number="integer"), 1),
        ("number", "-3", item("3", number="integer"), 0),
        ("number", "about 1.26 cm", item("1.3", number="float", precision=1), 1),
        ("number", "1,200", item("1200", number="integer"), 1),
        ("number", "none", item("3", number="integer"), 0),
        ("number", "[1, 2]", item("[1, 2]", number="list"), 1),
        ("mmmu", "x = 2.5", item("2.5"), 1),
        ("mmmu", "25", item("2.5"), 0),
        ("mmmu", "-5", item("5"), 0),
        ("mmmu", "", item("a"), 0),
        ("mmmu", "It is the Baroque period", item("baroque"), 1),
        ("mmmu", "rococo", item("roco", "baroque"), 0),
    ],
)
def test_each_rule(rule: str, reply: str, asked: BenchmarkItem, expected: float) -> None:
    assert credit(reply, asked, rule) == pytest.approx(expected)


def test_choices_are_read_by_letter_whatever_the_rule() -> None:
    asked = item("B", options=("six", "seven"))
    assert [credit(reply, asked, "exact") for reply in ("B. seven", "seven", "six", "")] == [
        *(1, 1, 0, 0)
    ]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_set_has_a_file_that_asks_with_all_that_is_to_be_said(name: str) -> None:
    rules = prompts(name)
    choice = prompt(item("B", options=("six", "seven")), rules)
    listed = () if rules.choose == "likelihood" else ("six", "seven")
    assert all(text in choice for text in ("q", *listed))
    assert prompt(item("x"), rules).startswith("q")
    assert prompt(item("x"), rules, "[00:01] hello").count("hello") == 1
    assert rules.source
    assert rules.get


# Statistics ----------------------------------------------------------------------


def test_a_mean_of_means_and_its_clusters_by_hand() -> None:
    # two tasks: (1, 0) and (1, 1, 1): the mean of questions 0.8, the mean of tasks 0.75
    credits_, tasks = [1, 0, 1, 1, 1], ["a", "a", "b", "b", "b"]
    videos = ["v1", "v2", "v1", "v3", "v3"]
    assert estimate(credits_, videos).mean == pytest.approx(0.8)
    macro = estimate(credits_, videos, tasks)
    assert macro.mean == pytest.approx(0.75)
    # pulls: v1 (1 - 0.5) / 4, v2 (0 - 0.5) / 4, v3 0; times C / (C - 1) = 3 / 2
    assert macro.error == pytest.approx((1.5 * 2 * 0.125**2) ** 0.5)
    assert (macro.count, macro.clusters) == (5, 3)


def test_one_video_tells_nothing_of_the_error() -> None:
    assert np.isnan(estimate([1, 0], ["v", "v"]).error)


def test_the_interval_covers_where_questions_of_a_video_fall_together() -> None:
    rng = np.random.default_rng(5)
    covered = {"clustered": 0, "alone": 0}
    for _ in range(400):
        chance = rng.beta(1, 1, 60)  # of each video
        right = (rng.random((60, 5)) < chance[:, None]).astype(float)
        videos = np.repeat(np.arange(60), 5).tolist()
        for name, clusters in (("clustered", videos), ("alone", list(range(300)))):
            low, high = estimate(right.ravel().tolist(), clusters).interval
            covered[name] += low <= 0.5 <= high
    assert 0.92 <= covered["clustered"] / 400 <= 0.98
    assert covered["alone"] / 400 < 0.85  # what a plain error claims


def test_paired_differences_are_those_of_the_same_questions() -> None:
    first, second = [1, 0, 0, 1], [1, 1, 0, 1]
    found = paired(first, second, ["a", "b", "c", "d"])
    assert found.mean == pytest.approx(0.25)
    assert found.error == pytest.approx(np.std([0, 1, 0, 0], ddof=1) / 2)
