"""The processor as callers of transformers know it: every keyword acts, or is refused by name."""

from __future__ import annotations

import base64
import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ProcessorMixin, TensorType
from transformers.processing_utils import (
    AudioKwargs,
    ImagesKwargs,
    ProcessingKwargs,
    TextKwargs,
    VideosKwargs,
)
from transformers.video_utils import VideoMetadata

from shards.errors import UserError
from tests.support.chat.tiny_chat import (
    CODEC,
    asked,
    chat_processor,
    clip_file,
    frames,
    inputs_of,
    picture,
)
from train.model.processing import SlowFastProcessor

VIDEO = {"type": "video", "video": frames(12), "seconds": [i / 2 for i in range(12)]}
TALK = asked(VIDEO, {"type": "image", "image": picture()})
SHORT = asked(text="which")
SAID = [*SHORT, {"role": "assistant", "content": "seven"}]


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> SlowFastProcessor:
    return chat_processor(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_file(tmp_path_factory.mktemp("video"))


def keywords_of_transformers() -> list[str]:
    """Of processors' calls, flat and nested, and of `apply_chat_template`."""
    named: set[str] = set()
    for kind in (TextKwargs, ImagesKwargs, VideosKwargs, AudioKwargs, ProcessingKwargs):
        named |= set(kind.__annotations__)
    for call in (ProcessorMixin.__call__, ProcessorMixin.apply_chat_template):
        parameters = inspect.signature(call).parameters.values()
        named |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    return sorted(named - {"self", "conversation", "processor_kwargs"})


# how it is seen that a keyword acts: values that change what comes out (`True` where it is
# accepted because it says what is done anyway)
ACTS: dict[str, list[dict[str, Any]]] = {
    "padding": [{"padding": "max_length", "max_length": 400}],
    "max_length": [{"padding": "max_length", "max_length": 400}],
    "truncation": [{"truncation": True, "max_length": 12}],
    "pad_to_multiple_of": [{"pad_to_multiple_of": 256}],
    "padding_side": [{"padding_side": "right"}],
    "return_attention_mask": [{"return_attention_mask": False}],
    "return_tensors": [{"return_tensors": "np"}, {"return_tensors": TensorType.NUMPY}],
    "num_frames": [{"num_frames": 2}],
    "fps": [{"fps": 2, "num_frames": 8}],
    "do_sample_frames": [{"do_sample_frames": False}],
    "text_kwargs": [{"text_kwargs": {"padding_side": "right"}}],
    "videos_kwargs": [{"videos_kwargs": {"num_frames": 2}}],
    "add_generation_prompt": [{"add_generation_prompt": True}],
    "return_assistant_tokens_mask": [{"return_assistant_tokens_mask": True}],
    "tokenize": [{"tokenize": False}],
    "return_dict": [{"return_dict": False}],
    "continue_final_message": [{"continue_final_message": True}],
}
CHOICES = {"truncation": [SHORT, SAID], "continue_final_message": SAID}
DONE_ANYWAY = {"sanitize_control_tokens": (True, False), "add_special_tokens": (False, True)}
OF_CALLS = {"images", "text", "videos"}
"""Arguments of `processor()` itself: tests below."""
NESTED_REFUSED = {"images_kwargs": "do_resize", "audio_kwargs": "sampling_rate"}


def talked(processor: SlowFastProcessor, **keywords: Any) -> Any:
    name = next((name for name in CHOICES if name in keywords), "")
    talk = CHOICES.get(name, [TALK, SHORT])
    return processor.apply_chat_template(talk, **{"tokenize": True} | keywords)


def flat(value: Any) -> Any:
    if hasattr(value, "items"):
        return {name: flat(one) for name, one in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray):
        return type(value).__name__, value.tolist()
    return value


@pytest.mark.parametrize("name", keywords_of_transformers())
def test_every_keyword_acts_or_is_refused_by_name(processor: SlowFastProcessor, name: str) -> None:
    if name in OF_CALLS:
        return
    if name in DONE_ANYWAY:
        same, other = DONE_ANYWAY[name]
        assert flat(talked(processor, **{name: same})) == flat(talked(processor))
        with pytest.raises(UserError, match=f"{name}={other}"):
            talked(processor, **{name: other})
        return
    if name == "chat_template":
        with pytest.raises(UserError, match="chat_template with tokenize=True"):
            talked(processor, chat_template="{{ messages }}")
        assert talked(processor, chat_template="hello", tokenize=False) == ["hello", "hello"]
        return
    if name == "video_metadata":  # acts where videos are given beside the text: a test below
        with pytest.raises(UserError, match="video_metadata: give it in the video's own part"):
            talked(processor, video_metadata=[{"fps": 2}])
        return
    if name not in ACTS:
        value: Any = {NESTED_REFUSED[name]: 1} if name in NESTED_REFUSED else 1
        named = NESTED_REFUSED.get(name, name)
        for place in ({name: value}, {"processor_kwargs": {name: value}}):
            with pytest.raises(TypeError, match=f"nothing here acts on '{named}'"):
                talked(processor, **place)
        if name != "audio":
            with pytest.raises(TypeError, match=f"nothing here acts on '{named}'"):
                processor(text="x", **{name: value})
        return
    for keywords in ACTS[name]:
        without = {n: v for n, v in keywords.items() if n in CHOICES and n != name}
        plain = processor.apply_chat_template(CHOICES.get(name, [TALK, SHORT]), tokenize=True)
        found = talked(processor, **keywords)
        assert flat(found) != flat(plain), without


def test_what_each_option_does(processor: SlowFastProcessor) -> None:
    both = talked(processor)
    ids, mask = both["input_ids"], both["attention_mask"]
    short = int(mask[1].sum())
    right = talked(processor, padding_side="right")
    assert right["attention_mask"][1].tolist() == [1] * short + [0] * (mask.shape[1] - short)
    assert torch.equal(right["input_ids"][1, :short], ids[1, -short:])
    processor.tokenizer.padding_side = "right"
    assert flat(talked(processor)) == flat(right)
    processor.tokenizer.padding_side = "left"
    assert talked(processor, pad_to_multiple_of=64)["input_ids"].shape[1] % 64 == 0
    assert talked(processor, padding="max_length", max_length=400)["input_ids"].shape[1] == 400
    cut = processor.apply_chat_template(SAID, tokenize=True, truncation=True, max_length=6)
    whole = processor.apply_chat_template(SAID, tokenize=True)
    assert cut["input_ids"].tolist() == whole["input_ids"][:, :6].tolist()
    with pytest.raises(ValueError, match=r"truncation to 20 tokens would cut its media, .* token"):
        talked(processor, text_kwargs={"truncation": True}, max_length=20)
    with pytest.raises(UserError, match="max_length goes with"):
        talked(processor, max_length=20)
    with pytest.raises(UserError, match=r"padding=False for rows of \[\d+, \d+\]"):
        talked(processor, padding=False)
    with pytest.raises(TypeError, match=r"'num_frame'; .* did you mean 'num_frames'"):
        talked(processor, num_frame=2)
    assert talked(processor, num_frames=2)["seconds"].tolist() == [0, 3, 0]
    assert talked(processor, fps=2, num_frames=3)["seconds"].tolist() == [0, 2, 4, 0]
    assert len(talked(processor, do_sample_frames=False)["seconds"]) == 13
    for wrong in ({"fps": 1.5}, {"fps": 30}, {"num_frames": 0}, {"num_frames": 10_000}):
        with pytest.raises(UserError, match=r"give a whole number from 1 to"):
            talked(processor, **wrong)
    with pytest.raises(UserError, match="is given twice"):
        talked(processor, num_frames=2, videos_kwargs={"num_frames": 3})


@pytest.mark.parametrize("end", ["seven", "seven ", [{"type": "text", "text": "it is"}]])
def test_an_unfinished_answer_ends_as_transformers_ends_it(
    processor: SlowFastProcessor, end: Any
) -> None:
    talk = [*SHORT, {"role": "assistant", "content": end}]
    options = {"continue_final_message": True}
    found = processor.apply_chat_template(talk, tokenize=True, **options)
    text = processor.apply_chat_template(talk, **options)
    assert text.endswith(end if isinstance(end, str) else "it is")
    assert processor(text=text)["input_ids"].tolist() == found["input_ids"].tolist()
    for clash in ("add_generation_prompt", "return_assistant_tokens_mask"):
        with pytest.raises(UserError, match=f"continue_final_message with {clash}"):
            processor.apply_chat_template(talk, tokenize=True, **options, **{clash: True})


def test_a_prompt_with_media_beside_it_gives_what_the_conversation_gives(
    processor: SlowFastProcessor, video: Path
) -> None:
    image, film = picture(), str(video)
    talk = asked({"type": "image", "image": image}, {"type": "video", "video": film})
    expected = flat(inputs_of(processor, talk))
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    calls = [
        {"text": text, "images": image, "videos": film},
        {"text": [text], "images": [image], "videos": [film]},
        {"text": [text], "images": [[image]], "videos": [[film]], "return_tensors": "pt"},
    ]
    for call in calls:
        assert flat(processor(**call)) == expected
    two = processor(text=[text, "which"], images=[[image], []], videos=[film])
    assert flat(two)["patches"] == expected["patches"]
    for wrong in ({"images": image}, {"images": [image, image], "videos": film}):
        with pytest.raises(UserError, match=r"\d (image|video) pads"):
            processor(text=text, **wrong)
    with pytest.raises(UserError, match="give text"):
        processor(images=image)


def test_a_plain_text_has_its_media_in_front(processor: SlowFastProcessor) -> None:
    found = processor(picture(), "which digit")
    marked = processor(picture(), "<|vision_start|><|image_pad|><|vision_end|>which digit")
    assert flat(found) == flat(marked)
    both = processor([picture(), picture(96)], ["which", "digit"])
    assert both["slots"]["sample"].unique().tolist() == [0, 1]


FILMS: dict[str, Any] = {
    "array": frames(),
    "channels first": np.moveaxis(frames(), -1, 1),
    "tensor": torch.from_numpy(frames()),
    "arrays": list(frames()),
    "tensors": [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames()],
    "pictures": [Image.fromarray(frame) for frame in frames()],
}


@pytest.mark.parametrize("form", FILMS)
def test_frames_in_memory_are_the_same_in_every_form(
    processor: SlowFastProcessor, form: str
) -> None:
    seconds = [*range(6)]
    expected = flat(
        inputs_of(processor, asked({"type": "video", "video": frames(), "seconds": seconds}))
    )
    film = FILMS[form]
    about = VideoMetadata(total_num_frames=6, fps=1)
    for part in ({"seconds": seconds}, {"video_metadata": about}, {"video_metadata": {"fps": 1}}):
        talk = asked({"type": "video", "video": film} | part)
        assert flat(inputs_of(processor, talk)) == expected
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    assert flat(processor(text=text, videos=film, video_metadata=about)) == expected
    assert flat(processor(text=[text], videos=[film], video_metadata=[[about]])) == expected
    with pytest.raises(UserError, match="6 frames without times; give `seconds`"):
        processor(text=text, videos=film)


def test_pictures_come_in_every_form(
    processor: SlowFastProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture()
    path = tmp_path / "p.png"
    image.save(path)
    data = path.read_bytes()
    coded = base64.b64encode(data).decode()
    asked_for = []

    def fetched(address: str) -> Any:
        asked_for.append(address)
        return type("Local", (), {"path": path})

    monkeypatch.setattr("train.data.user_media.local", fetched)
    expected = flat(inputs_of(processor, asked({"type": "image", "image": image})))
    link = "https://example.org/p.png"
    parts: list[dict[str, Any]] = [
        {"type": "image", "image": str(path)},
        {"type": "image", "path": path},
        {"type": "image", "url": link},
        {"type": "image", "base64": coded},
        {"type": "image", "url": f"data:image/png;base64,{coded}"},
        {"type": "image_url", "image_url": {"url": link}},
        {"type": "image", "image": np.asarray(image)},
        {"type": "image", "image": torch.from_numpy(np.array(image)).permute(2, 0, 1)},
        {"type": "image", "image": data, "text": None},
    ]
    for part in parts:
        assert flat(inputs_of(processor, asked(part))) == expected
    assert asked_for == [link, link]


def test_an_address_goes_through_the_guard(processor: SlowFastProcessor) -> None:
    for link in ("http://localhost/p.png", "https://127.0.0.1/p.png", "file:///etc/passwd"):
        with pytest.raises(UserError, match=r"medium 0|FETCH_ADDRESS_REFUSED|address"):
            inputs_of(processor, asked({"type": "image", "url": link}))


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"type": "image", "image": picture(), "max_pixels": 9}, "max_pixels"),
        ({"type": "video", "video": "v.mp4", "fps": 1.0}, "fps"),
        ({"type": "audio", "audio": "a.wav"}, "audio"),
        ({"type": "text", "text": "x", "txt": "y"}, "txt"),
        ({"type": "image", "image": picture(), "path": "p.png"}, "2 media in one part"),
        ({"type": "image"}, "0 media in one part"),
        ({"type": "image", "base64": "?"}, "no base64"),
    ],
)
def test_keys_of_a_part_that_nothing_reads_are_refused(
    processor: SlowFastProcessor, part: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        inputs_of(processor, asked(part))
    with pytest.raises(UserError, match=r"nothing here reads \['tool_calls'\]"):
        processor.apply_chat_template(
            [{"role": "user", "content": "x", "tool_calls": [], "name": None}], tokenize=True
        )


def test_everything_moves_and_nothing_is_cast(processor: SlowFastProcessor) -> None:
    inputs = talked(processor).to("meta", dtype=torch.bfloat16)
    parts = [*inputs.values(), *inputs["slots"].values(), *inputs["memory"].values()]
    assert all(t.device.type == "meta" for t in parts if isinstance(t, torch.Tensor))
    assert inputs["seconds"].dtype == torch.float32 and inputs["patches"].dtype == torch.uint8
    same = talked(processor).to(dtype=torch.bfloat16)
    assert same["seconds"].dtype == torch.float32


def test_prompts_and_conversations_have_the_same_ids(processor: SlowFastProcessor) -> None:
    talk = [
        {"role": "system", "content": "be brief"},
        *asked(text="\nwhich digit\n\n is this?  "),
        {"role": "assistant", "content": " seven"},
        {"role": "user", "content": ""},
    ]
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    assert (
        processor(text=text)["input_ids"].tolist()
        == inputs_of(processor, talk)["input_ids"].tolist()
    )
    assert CODEC.render_prompt("<|endoftext|>x", []).ids[0] == CODEC.token_id("<|endoftext|>")
    data = io.BytesIO()
    picture().save(data, "PNG")
    assert flat(processor(data.getvalue(), "x")) == flat(processor(picture(), "x"))
