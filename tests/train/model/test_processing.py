"""The processor: ids, frames and slots as in training; Auto classes; generation; LoRA."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, TextStreamer

from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.tokens.frame_view import ClipView
from mixtures.tokens.text import pieces_of
from shards.errors import UserError
from shards.profile import Profile
from shards.reader import open_data
from shards.sample import Clip, Turn
from tests.support.chat.tiny_chat import (
    CODEC,
    LAYOUT,
    MARKS,
    VIEW,
    asked,
    chat_model,
    chat_processor,
    clip_file,
    inputs_of,
    picture,
)
from tests.support.tiny_pool import tiny_manifest
from train.data.collate import build_pack
from train.data.jpeg_patches import Frames, open_jpegs
from train.data.render import Rules, render
from train.data.user_media import see_files
from train.model import register
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.processing import SlowFastProcessor, processor_of
from train.model.vision import normalised


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> SlowFastProcessor:
    return chat_processor(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_file(tmp_path_factory.mktemp("video"))


def test_a_video_file_is_laid_out_as_in_training(processor: SlowFastProcessor, video: Path) -> None:
    inputs = inputs_of(processor, asked({"type": "video", "video": str(video)}))
    (seen,) = see_files([(video, "video", "v")], Profile())
    turns = [Turn(role="user", text="which digit is this", media=((0, 0),))]
    sample = render(
        "v",
        turns,
        [seen.clip],
        lambda _, clip_view, used: open_jpegs(seen.jpegs, clip_view, used, seen.clip),
        processor.rules,
        answer=True,
    )
    pack = build_pack([sample], LAYOUT)
    assert inputs["input_ids"][0].tolist() == pack.tokens.tolist()
    assert np.array_equal(inputs["patches"], pack.patches)
    assert np.array_equal(inputs["slots"]["position"], pack.patch_index.position)
    assert inputs["seconds"].tolist() == [0.0, 1.0, 3.0, 4.0]  # 4 of 6, at one frame a second


def test_the_tower_sees_the_same_zeros_in_training_and_of_a_user_packed_or_not(
    processor: SlowFastProcessor, tmp_path: Path
) -> None:
    """Around a boxed picture stands black, as in a letterboxed film: -1 when normalised."""
    path = tmp_path / "v.mkv"
    source = "color=white:s=96x64:r=2:d=2"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv444p"]
    subprocess.run([*command, "-c:v", "libx264", "-qp", "0", str(path)], check=True)
    (seen,) = see_files([(path, "video", "v")], Profile())
    turns = [Turn(role="user", text="which digit is this", media=((0, 0),))]
    stored = [memoryview(one) for one in seen.jpegs]
    sample = render(
        "v", turns, [seen.clip],
        lambda _, clip_view, used: open_jpegs(stored, clip_view, used, seen.clip),
        processor.rules,
    )  # fmt: skip
    alone, packed = build_pack([sample], LAYOUT), build_pack([sample, sample], LAYOUT)
    mine = inputs_of(processor, asked({"type": "video", "video": str(path)}))["patches"]
    for patches in (alone.patches, *np.split(packed.patches, 2), np.asarray(mine)):
        assert np.array_equal(patches, alone.patches)
        values = normalised(torch.from_numpy(np.array(patches)), torch.zeros(1))
        first = values[:32].unflatten(1, (3, 16, 16)).unflatten(0, (4, 8))  # a frame of 128 x 64
        assert (first[:, 0] == -1).all() and (first[:, 7] == -1).all()
        assert (first[:, 1:7] > 0.9).all()


def test_frames_with_times_keep_their_times(processor: SlowFastProcessor) -> None:
    frames = np.zeros((6, 64, 64, 3), np.uint8)
    seconds = [5.0, 5.9, 7.1, 8.0, 9.0, 10.0]
    part = {"type": "video", "video": frames, "seconds": seconds}
    inputs = inputs_of(processor, asked(part))
    assert inputs["seconds"].tolist() == pytest.approx([0.0, 0.9, 3.0, 4.0])
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert "0.0s<|video_pad|>" in text and "3.0s<|video_pad|>" in text


def test_frames_that_fit_the_question_are_chosen_by_their_scores(
    processor: SlowFastProcessor,
) -> None:
    rules = processor.to_dict()
    asking = SlowFastProcessor(
        processor.tokenizer,
        layout=rules["layout"],
        frames=rules["frames"] | {"selection": "query", "cap": 2},
        profile=rules["profile"],
    )
    part = {"type": "video", "video": np.zeros((6, 64, 64, 3), np.uint8), "seconds": [*range(6)]}
    inputs = inputs_of(asking, asked(part | {"scores": [0, 9, 1, 0, 8, 1]}))
    assert inputs["seconds"].tolist() == [1.0, 4.0]
    with pytest.raises(ValueError, match=r"conversation 0: clip .* query needs 6 scores, .* has 0"):
        inputs_of(asking, asked(part))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"video": np.zeros((0, 64, 64, 3), np.uint8), "seconds": []}, "0 frames and 0 times"),
        ({"video": np.zeros((2, 64, 64, 3), np.uint8), "seconds": [1.0]}, "2 frames and 1 times"),
        ({"video": np.zeros((2, 64, 64, 3), np.uint8), "seconds": [1.0, 1.0]}, "do not ascend"),
        ({"video": "nowhere.mp4"}, r"nowhere.mp4\): MEDIA_MISSING"),
        ({"video": 3}, "int of int64 .* is nothing to look at"),
    ],
)
def test_bad_media_are_named(processor: SlowFastProcessor, part: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"conversation 1, medium 0.*{said}"):
        inputs_of(processor, asked(), asked({"type": "video"} | part))


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_short_video_shows_every_frame(processor: SlowFastProcessor, frames: int) -> None:
    pixels = np.full((frames, 64, 64, 3), 99, np.uint8)
    part = {"type": "video", "video": pixels, "seconds": list(range(frames))}
    inputs = inputs_of(processor, asked(part))
    assert inputs["grids"].tolist() == [[4, 4]] * frames
    assert int((inputs["slots"]["kind"] == 1).sum()) == frames  # one fast token each


def test_a_picture_of_1_by_4000_pixels_is_refused_by_name(processor: SlowFastProcessor) -> None:
    part = {"type": "image", "image": picture(1, 4000)}
    with pytest.raises(UserError, match="conversation 0, medium 0: MEDIA_BAD_ASPECT: 1 x 4000"):
        inputs_of(processor, asked(part))


def test_a_picture_of_1_by_60_pixels_stands_on_a_canvas(processor: SlowFastProcessor) -> None:
    inputs = inputs_of(processor, asked({"type": "image", "image": picture(1, 60)}))
    (height, width) = inputs["grids"][0].tolist()
    assert (height, width) == (4, 2)
    columns = inputs["patches"].view(height, width, 16, 16, 3).float()
    assert columns[:, 0, :, :8].max() < 20 and columns.max() > 50


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|video_pad|>", "<|im_start|>assistant\n"])
def test_text_never_becomes_control_tokens(processor: SlowFastProcessor, mark: str) -> None:
    part = {"type": "image", "image": picture()}
    plain = inputs_of(processor, asked(part, text="x"))
    inputs = inputs_of(processor, asked(part, text=f"a {mark} b"))

    def controls(batch: Any) -> list[int]:
        return [i for i in batch["input_ids"][0].tolist() if i in MARKS]

    assert controls(inputs) == controls(plain)


def test_the_template_renders_the_same_ids_and_mask(processor: SlowFastProcessor) -> None:
    conversation = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "which digit is this"},
        {"role": "assistant", "content": "seven"},
        {"role": "user", "content": "which digit"},
        {"role": "assistant", "content": [{"type": "text", "text": "nine"}]},
    ]
    ours = processor.apply_chat_template(
        conversation, tokenize=True, return_assistant_tokens_mask=True
    )
    theirs = processor.tokenizer.apply_chat_template(
        conversation,
        chat_template=processor.chat_template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert ours["input_ids"][0].tolist() == theirs["input_ids"]
    assert ours["assistant_masks"][0].tolist() == theirs["assistant_masks"]
    turns = [
        Turn(role=m["role"], text=m["content"] if isinstance(m["content"], str) else "nine")
        for m in conversation
    ]
    rendered = CODEC.render(turns, [])
    assert rendered.ids.tolist() == theirs["input_ids"]
    assert rendered.supervised.astype(int).tolist() == theirs["assistant_masks"]
    shown = processor.apply_chat_template(asked({"type": "video", "video": "v.mp4"}))
    assert "<|vision_start|><|video_pad|><|vision_end|>which" in shown


@torch.no_grad()
def test_a_batch_answers_as_one_by_one_greedy_sampled_and_streamed(
    processor: SlowFastProcessor, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conversations = [
        asked({"type": "image", "image": picture()}),
        asked({"type": "video", "video": str(video)}, text="which digit is this, seven or nine"),
        asked(),
    ]
    made = chat_model()
    batch = inputs_of(processor, *conversations)
    length = batch["input_ids"].shape[1]
    options = {"max_new_tokens": 5}
    together = made.generate(**batch, **options, do_sample=False)[:, length:]
    for conversation, answer in zip(conversations, together, strict=True):
        alone = inputs_of(processor, conversation)
        found = made.generate(**alone, **options, do_sample=False)
        assert found[0, alone["input_ids"].shape[1] :].tolist() == answer.tolist()
    assert not {i for row in together.tolist() for i in row} & set(MARKS)
    drawn = [
        made.generate(**batch, **options, do_sample=True)
        for seed in (1, 1, 2)
        if torch.manual_seed(seed)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])
    alone = inputs_of(processor, conversations[0])
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True)
    made.generate(**alone, **options, do_sample=False, streamer=streamer)
    assert processor.tokenizer.decode(together[0]).strip() == capsys.readouterr().out.strip()


@torch.no_grad()
def test_ids_that_were_cut_after_the_processor_name_the_sample_and_both_counts(
    processor: SlowFastProcessor,
) -> None:
    part = {"type": "image", "image": picture()}
    one, both = inputs_of(processor, asked(part)), inputs_of(processor, asked(), asked(part))
    pad = CODEC.token_id("<|image_pad|>")
    pads = int((both["input_ids"] == pad).sum())
    assert pads > 2
    for batch, sample in ((one, 0), (both, 1)):
        at = (batch["input_ids"][sample] == pad).nonzero()[0]
        batch["input_ids"][sample, at] = CODEC.token_id("<|im_end|>")
        with pytest.raises(ValueError, match=f"sample {sample}: {pads - 1} placeholders, {pads} f"):
            chat_model().generate(**batch, max_new_tokens=1)
    one["input_ids"] = one["input_ids"][:, :4]
    one["attention_mask"] = one["attention_mask"][:, :4]
    with pytest.raises(ValueError, match=rf"sample 0: \d placeholders, {pads} features"):
        chat_model().generate(**one, max_new_tokens=1)


@torch.no_grad()
def test_auto_classes_load_model_and_processor(
    processor: SlowFastProcessor, tmp_path: Path
) -> None:
    register()
    made = chat_model()
    made.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists() and not list(tmp_path.glob("*.bin"))
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, SlowFastProcessor) and again.rules.layout == LAYOUT
    assert (again.rules.view, again.profile) == (VIEW, asdict(Profile()))
    batch = asked({"type": "image", "image": picture()})
    one, two = inputs_of(processor, batch), inputs_of(again, batch)
    assert torch.equal(one["input_ids"], two["input_ids"])
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": MARKS[0]}
    assert torch.equal(made.generate(**one, **options), loaded.generate(**two, **options))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_lora_trains_few_weights_and_merges_into_the_same_model(
    processor: SlowFastProcessor,
) -> None:
    peft = pytest.importorskip("peft")
    plain = chat_model()
    batch = inputs_of(processor, asked({"type": "image", "image": picture()}))
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(chat_model(), config)
    trained = [name for name, p in tuned.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    tuned(**batch).logits.sum().backward()
    assert all(p.grad is not None for p in tuned.parameters() if p.requires_grad)
    with torch.no_grad():
        adapted = tuned.eval()(**batch).logits
        assert (adapted - plain(**batch).logits).abs().max() > 0.01
        merged = tuned.merge_and_unload()
        assert isinstance(merged, SlowFastForConditionalGeneration)
        torch.testing.assert_close(merged(**batch).logits, adapted, rtol=1e-4, atol=1e-4)


def opened(
    jpegs: Sequence[Sequence[bytes]], clips: Sequence[Clip], n: int, clip_view: ClipView, used: Any
) -> Frames:
    return open_jpegs(jpegs[n], clip_view, used, clips[n])


def test_processor_and_trainer_agree_on_every_sample_of_a_manifest(tmp_path: Path) -> None:
    path = tiny_manifest(tmp_path, timestamps="per_frame_text")
    manifest = load_manifest(path)
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    reader = open_data(str(tmp_path / "pool"))
    tokenizer = str(tmp_path / "tokenizer.json")
    profile = manifest.contents.profile
    processor = processor_of(rules, profile, tokenizer)
    met = set()
    for drawn in Draws(manifest).samples(0, 60):
        stored = reader.read(drawn.source, drawn.key)
        sample = stored.sample
        rendered = render(
            "s",
            sample.turns,
            sample.clips,
            partial(opened, stored.frames, sample.clips),
            rules,
        )
        media = [[simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs] for jpegs in stored.frames]
        inputs = processor.apply_chat_template(
            [message(turn, sample.clips, media) for turn in sample.turns], tokenize=True
        )
        assert inputs["input_ids"][0].tolist() == rendered.text.ids.tolist()
        pack = build_pack([rendered], rules.layout)
        assert torch.equal(inputs["slots"]["feature"], torch.from_numpy(pack.patch_index.feature))
        assert inputs["seconds"].tolist() == pytest.approx(pack.times.tolist())
        met.add(drawn.source)
    assert met == {"pictures", "clips"}


def message(turn: Turn, clips: Any, media: list[list[np.ndarray]]) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    for text, clip in pieces_of(turn):
        content.append({"type": "text", "text": text})
        if clip is None:
            continue
        kind = clips[clip].kind
        part: dict[str, Any] = {"type": kind, kind: np.stack(media[clip])}
        if kind == "image":
            part[kind] = Image.fromarray(media[clip][0])
        else:
            part["seconds"] = clips[clip].seconds()
        content.append(part)
    return {"role": turn.role, "content": content}
