"""Generation: what is shown counts for every token, whatever the cache, search or mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.chat.tiny_chat import (
    MARKS,
    asked,
    by_hand,
    chat_model,
    chat_processor,
    frames,
    inputs_of,
    picture,
)
from train.model.inputs import VISUAL_INPUTS
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.processing import SlowFastProcessor

STEPS = 6
IMAGE = {"type": "image", "image": picture()}
VIDEO = {"type": "video", "video": frames(), "seconds": [*range(6)]}


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> SlowFastProcessor:
    return chat_processor(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def inputs(processor: SlowFastProcessor) -> dict[str, Any]:
    return dict(inputs_of(processor, asked(VIDEO, IMAGE)))


def said(model: SlowFastForConditionalGeneration, inputs: Any, **options: Any) -> list[int]:
    made = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, **options)
    return made[0, inputs["input_ids"].shape[1] :].tolist()


def blind(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in VISUAL_INPUTS}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 3},
        {"assistant_model": "twin"},
        {"assistant_model": "smaller"},
        {"assistant_model": "blind"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_every_way_to_the_greedy_answer_sees_the_picture(
    inputs: dict[str, Any], options: dict[str, Any]
) -> None:
    model = chat_model()
    assistants = {"twin": chat_model(), "smaller": chat_model(1, hidden_size=16)}
    assistants["blind"] = assistants["twin"].language_model
    if "assistant_model" in options:
        options = {"assistant_model": assistants[options["assistant_model"]]}
    expected = by_hand(model, inputs, STEPS)
    assert said(model, inputs, **options) == expected
    other = inputs | {"patches": 255 - inputs["patches"]}
    assert said(model, other, **options) == by_hand(model, other, STEPS) != expected


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_generation_in_training_mode_with_checkpointing_sees_the_picture(
    inputs: dict[str, Any],
) -> None:
    model = chat_model()
    expected = by_hand(model, inputs, STEPS)
    model.gradient_checkpointing_enable()
    assert said(model.train(), inputs) == expected
    assert model.training


def test_an_answer_may_only_hold_what_is_allowed(inputs: dict[str, Any]) -> None:
    model, allowed = chat_model(), list(range(40, 60))

    def kept(logits: torch.Tensor) -> torch.Tensor:
        rest = torch.full_like(logits, -torch.inf)
        rest[allowed] = logits[allowed]
        return rest

    expected = by_hand(model, inputs, STEPS, kept)
    assert said(model, inputs, prefix_allowed_tokens_fn=lambda *_: allowed) == expected


@torch.no_grad()
def test_beams_and_several_answers_are_those_of_prompts_given_several_times(
    processor: SlowFastProcessor,
) -> None:
    model = chat_model()
    conversations = [asked(IMAGE), asked(VIDEO, text="which"), asked()]
    batch = inputs_of(processor, *conversations)
    length = batch["input_ids"].shape[1]
    found = model.generate(
        **batch, max_new_tokens=4, num_beams=3, num_return_sequences=2, do_sample=False
    )
    for number, conversation in enumerate(conversations):
        alone = dict(inputs_of(processor, conversation))
        prompt = alone["input_ids"].shape[1]
        for options in ({}, {"use_cache": False}):
            best = model.generate(**alone, max_new_tokens=4, num_beams=3, **options)
            assert found[2 * number, length:].tolist() == best[0, prompt:].tolist()
        # the best of three beams is at least as likely as the greedy answer
        greedy = by_hand(model, alone, 4)
        assert likelihood(model, alone, best[0, prompt:].tolist()) >= likelihood(
            model, alone, greedy
        )
    torch.manual_seed(5)
    several = model.generate(**batch, max_new_tokens=4, do_sample=True, num_return_sequences=2)
    torch.manual_seed(5)
    twice = inputs_of(processor, *(c for c in conversations for _ in range(2)))
    assert torch.equal(several, model.generate(**twice, max_new_tokens=4, do_sample=True))


def likelihood(
    model: SlowFastForConditionalGeneration, inputs: dict[str, Any], answer: list[int]
) -> float:
    ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], 1)
    given = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    logits = model(**given).logits[0, -len(answer) - 1 : -1].float()
    logits[:, MARKS] = -torch.inf
    picked = logits.log_softmax(1)[torch.arange(len(answer)), answer]
    return float(picked.sum())


def test_a_second_turn_goes_on_from_the_cache_of_the_first(processor: SlowFastProcessor) -> None:
    model = chat_model()
    first = dict(inputs_of(processor, asked(IMAGE)))
    talk = [*asked(IMAGE), {"role": "assistant", "content": "seven"}, *asked(VIDEO)]
    both = dict(inputs_of(processor, talk))
    assert torch.equal(both["input_ids"][:, : first["input_ids"].shape[1]], first["input_ids"])
    cache = model(**first, use_cache=True).past_key_values
    assert said(model, both, past_key_values=cache) == by_hand(model, both, STEPS)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, given: model(**given),
        lambda model, given: model.generate(**given, max_new_tokens=1),
        lambda model, given: model.generate(given["input_ids"], max_new_tokens=1),
        lambda model, given: model.generate(
            **given, max_new_tokens=1, cache_implementation="paged"
        ),
        lambda model, given: model(given["input_ids"], past_key_values=filled(model)),
        lambda model, given: model(**given, labels=given["input_ids"]),
    ],
)
def test_placeholders_without_features_are_refused_wherever_they_come_in(
    inputs: dict[str, Any], call: Any
) -> None:
    with pytest.raises(ValueError, match=r"sample 0: \d+ placeholders, 0 features"):
        call(chat_model(), blind(inputs))


def filled(model: SlowFastForConditionalGeneration) -> Any:
    return model(torch.tensor([[40, 41]]), use_cache=True).past_key_values


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"prefill_chunk_size": 8}, "prefill_chunk_size"),
        ({"token_healing": True}, "token_healing"),
        ({"assistant_early_exit": 1}, "assistant_early_exit"),
        ({"cache_implementation": "paged"}, "paged"),
        ({"inputs_embeds": torch.zeros(1, 2, 32)}, "inputs_embeds"),
    ],
)
def test_options_that_take_the_prompt_apart_are_refused_by_name(
    inputs: dict[str, Any], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        chat_model().generate(**inputs, **options, max_new_tokens=1)


def test_embeddings_are_generated_from_as_transformers_does() -> None:
    model, ids = chat_model(), torch.tensor([[40, 41, 42]])
    rows = model.get_input_embeddings()(ids)
    made = model.generate(inputs_embeds=rows, max_new_tokens=3, do_sample=False)
    assert made[0].tolist() == by_hand(
        model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 3
    )
