"""Text to ids: no content becomes a control token, answers alone are supervised, counts agree."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.tokens.layout_types import LayoutConfig, TokenRun
from mixtures.tokens.text import NEEDED, SPECIALS, TextCodec, pieces_of, train_tokenizer
from mixtures.tokens.token_plan import plan_frames
from shards.errors import UserError
from shards.sample import Turn
from tests.support.made_pool import TOKENIZER

CODEC = TextCodec(TOKENIZER)
IDS = {name: CODEC.token_id(name) for name in NEEDED}
TEXTS = st.lists(
    st.sampled_from(["which digit", " seven\n", "é", "漢字", "\U0001f600", *SPECIALS, " ", "0.5s"]),
    max_size=6,
).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[tuple[Turn, ...], list[list[TokenRun]]]:
    """Turns and the layouts of their clips, each clip named once somewhere."""
    turns, layouts = [], []
    for number in range(draw(st.integers(1, 4))):
        role = "assistant" if number % 2 else "user"
        text, places = draw(TEXTS), []
        for _ in range(draw(st.integers(0, 2)) if role == "user" else 0):
            at = draw(st.integers(places[-1][1] if places else 0, len(text)))
            places.append((len(layouts), at))
            kind = draw(st.sampled_from(["image", "video"]))
            cfg = LayoutConfig(slow_frames=2, timestamps="per_frame_text")
            seconds = [i * 0.5 for i in range(3)]
            layouts.append(plan_frames([(4, 4)] * 3, seconds, kind, cfg, CODEC.count))
        turns.append(Turn(role=role, text=text, media=tuple(places)))
    return tuple(turns), layouts


@settings(deadline=None)
@given(conversations())
def test_counts_are_the_length_of_what_is_rendered(
    made: tuple[tuple[Turn, ...], list[list[TokenRun]]],
) -> None:
    turns, layouts = made
    visual = sum(slot.n for layout in layouts for slot in layout)
    rendered = CODEC.render(turns, layouts)
    assert sum(CODEC.count_turns(turns)) + visual == len(rendered.ids) == len(rendered.supervised)


@settings(deadline=None)
@given(conversations())
def test_a_clip_that_is_mentioned_again_is_not_shown_again(
    made: tuple[tuple[Turn, ...], list[list[TokenRun]]],
) -> None:
    turns, layouts = made
    visual = sum(slot.n for layout in layouts for slot in layout)
    once, twice = CODEC.render(turns, layouts), CODEC.render(turns * 2, layouts)
    assert len(twice.ids) == 2 * len(once.ids) - visual
    assert np.array_equal(twice.visual, once.visual)


@settings(deadline=None)
@given(conversations())
def test_control_tokens_stand_where_the_template_and_the_slots_put_them(
    made: tuple[tuple[Turn, ...], list[list[TokenRun]]],
) -> None:
    turns, layouts = made
    ids = CODEC.render(turns, layouts).ids.tolist()
    assert ids.count(IDS["<|im_start|>"]) == ids.count(IDS["<|im_end|>"]) == len(turns)
    assert ids.count(IDS["<|vision_start|>"]) == ids.count(IDS["<|vision_end|>"]) == len(layouts)
    pads = ids.count(IDS["<|image_pad|>"]) + ids.count(IDS["<|video_pad|>"])
    wanted = sum(
        s.n for layout in layouts for s in layout if s.kind not in ("start", "end", "time")
    )
    assert pads == wanted


@pytest.mark.parametrize("special", SPECIALS)
def test_content_that_spells_a_control_token_is_plain_text(special: str) -> None:
    ids = CODEC.encode(f"a {special} b")
    assert CODEC.token_id(special) not in ids and len(ids) > 4
    assert CODEC.decode(ids) == f"a {special} b"


def test_answers_and_their_ends_alone_are_supervised() -> None:
    turns = (
        Turn(role="system", text="be brief"),
        Turn(role="user", text="which digit is this?"),
        Turn(role="assistant", text="seven"),
        Turn(role="user", text="and this?"),
        Turn(role="assistant", text="nine"),
    )
    rendered = CODEC.render(turns, [])
    answers = rendered.ids[rendered.supervised].tolist()
    end = IDS["<|im_end|>"]
    assert answers == [*CODEC.encode("seven"), end, *CODEC.encode("nine"), end]


def test_an_answer_without_a_loss_is_read_and_not_learned() -> None:
    turns = (
        Turn(role="user", text="which digit is this?"),
        Turn(role="assistant", text="seven", loss=0),
        Turn(role="user", text="and this?", loss=1),
        Turn(role="assistant", text="nine"),
    )
    rendered = CODEC.render(turns, [])
    learned = rendered.ids[rendered.supervised].tolist()
    assert learned == [*CODEC.encode("nine"), IDS["<|im_end|>"]]
    plain = tuple(Turn(role=turn.role, text=turn.text) for turn in turns)
    assert rendered.ids.tolist() == CODEC.render(plain, []).ids.tolist()
    assert CODEC.count_turns(turns) == CODEC.count_turns(plain)


def test_the_template_is_chatml() -> None:
    turns = (Turn(role="user", text="which"), Turn(role="assistant", text="seven"))
    start, end = IDS["<|im_start|>"], IDS["<|im_end|>"]
    newline = CODEC.encode("\n")
    question = [start, *CODEC.encode("user\n"), *CODEC.encode("which"), end, *newline]
    answer = [start, *CODEC.encode("assistant\n"), *CODEC.encode("seven"), end, *newline]
    assert CODEC.render(turns, []).ids.tolist() == question + answer
    opened = CODEC.render(turns[:1], [], answer=True)
    assert opened.ids.tolist() == [*question, start, *CODEC.encode("assistant\n")]
    assert not opened.supervised.any()


def test_visual_slots_are_found_where_they_start() -> None:
    layout = plan_frames([(2, 2)], [0], "image", LayoutConfig(), CODEC.count)
    turn = Turn(role="user", text="which digit", media=((0, 5),))
    rendered = CODEC.render([turn], [layout])
    assert [(clip, slot) for _, clip, slot in rendered.visual] == [(0, i) for i in range(6)]
    first = rendered.visual[0][0]
    assert rendered.ids[first] == IDS["<|vision_start|>"]
    assert rendered.ids[:first][-len(CODEC.encode("which")) :].tolist() == CODEC.encode("which")
    ends = [at for at, _, _ in rendered.visual[1:]]
    assert ends == [first + 1, first + 3, first + 4, first + 6, first + 7]


def test_a_turn_is_cut_at_its_media() -> None:
    turn = Turn(role="user", text="ab cd", media=((1, 0), (0, 3)))
    assert pieces_of(turn) == [("", 1), ("ab ", 0), ("cd", None)]


def test_a_trained_tokenizer_has_the_same_bytes_again_and_every_special() -> None:
    texts = ["which digit is this", "the ball moves left", "seven eight nine"] * 3
    one, other = train_tokenizer(texts, 300), train_tokenizer(iter(texts), 300)
    assert one == other
    codec = TextCodec(one)
    assert codec.vocab_size <= 300
    assert len({codec.token_id(name) for name in SPECIALS}) == len(SPECIALS)
    assert codec.decode(codec.encode("漢 é \x00 seven")) == "漢 é \x00 seven"


def test_the_profile_names_tokenizer_and_template() -> None:
    other = TextCodec(train_tokenizer(["other words"], 300))
    assert CODEC.profile_id == TextCodec(TOKENIZER).profile_id != other.profile_id


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"model": 3}'])
def test_bytes_that_are_no_tokenizer_are_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"t\.json"):
        TextCodec(data, where="t.json")


def test_a_tokenizer_without_the_specials_is_refused() -> None:
    data = TOKENIZER.replace(b"<|video_pad|>", b"<|video_pod|>")
    with pytest.raises(UserError, match=r"lacks .*video_pad"):
        TextCodec(data, where="t.json")


def test_a_codec_travels_to_other_processes() -> None:
    again = pickle.loads(pickle.dumps(CODEC))
    assert again.encode("which digit") == CODEC.encode("which digit")
