"""Where a reply attends: against arithmetic, by hand, and as the page of an ablation shows it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shards.errors import UserError
from tests.support.tiny_pool import QUESTIONS, tiny_manifest
from tests.support.tiny_run import TINY
from tests.train.ablation.made_results import write
from tests.train.evaluation.test_evaluation import video
from train.ablation.ablate import read_ablation, write_ablation
from train.ablation.attention_plot import plots, told
from train.ablation.page import write_page
from train.config import Stop
from train.data.user_media import Seen
from train.evaluation.answerer import Answerer, VisualQuestion
from train.evaluation.attended import AttendedFrame, attended
from train.evaluation.tasks import Medium
from train.loop import run

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attended")
    manifest = tiny_manifest(folder)
    video(folder / "red.mp4")
    run(replace(TINY, stop=Stop(steps=4)), manifest, str(folder / "pool"), folder / "out")
    return folder / "out/model"


def seen_of(answerer: Answerer, model: Path) -> Seen:
    medium = Medium(kind="video", name="red", path=model.parent.parent / "red.mp4")
    return answerer.see([medium])[medium]


def shares_of(frames: Iterable[AttendedFrame], pathway: str) -> list[float]:
    return [one.share for one in frames if one.pathway == pathway]


def test_attention_that_is_even_lies_on_frames_by_their_tokens(model: Path) -> None:
    answerer = Answerer(model)
    for layer in answerer.model.language_model.model.layers:
        # no query asks for anything: each row attends evenly to itself and what stands before
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.q_proj.bias)
    before = answerer.model.decoder_attention
    seen = seen_of(answerer, model)
    found = attended(answerer, VisualQuestion(text=QUESTIONS[0], seen=(seen,)), "red blue")
    assert answerer.model.decoder_attention == before
    view = answerer.clip_view(seen, QUESTIONS[0])
    times = [pts * view.time_base[0] / view.time_base[1] for pts in view.pts]
    fast = [one.seconds for one in found if one.pathway == "fast"]
    assert fast == pytest.approx(times) and len(shares_of(found, "slow")) >= 1
    prompt = answerer._prompt(0, VisualQuestion(text=QUESTIONS[0], seen=(seen,)), answerer.rules)
    length, reply = len(prompt.ids), len(answerer.rules.codec.encode("red blue")) + 1
    # of a row at place t (from 0) each place before it has 1 / (t + 1)
    each = np.mean([1 / (length + n) for n in range(reply)])
    runs = {"slow": 0, "fast": 0}
    for layout in prompt.sample.layouts:
        for one in layout:
            if one.kind in runs:
                runs[one.kind] += one.n
    for pathway, tokens in runs.items():
        assert sum(shares_of(found, pathway)) == pytest.approx(tokens * each, rel=1e-5)


def test_shares_are_positive_and_leave_some_for_the_text(model: Path) -> None:
    answerer = Answerer(model)
    asked = VisualQuestion(text=QUESTIONS[0], seen=(seen_of(answerer, model),))
    shares = [one.share for one in attended(answerer, asked, "red")]
    assert min(shares) > 0 and 0 < sum(shares) < 1
    assert attended(answerer, VisualQuestion(text=QUESTIONS[0]), "red") == []


def test_a_page_draws_it_where_it_is_asked_for(model: Path, tmp_path: Path) -> None:
    out = write(tmp_path / "out")
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "red"}]
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/red.mp4").write_bytes((model.parent.parent / "red.mp4").read_bytes())
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps([{"id": "q", "video": "red.mp4", "conversations": turns}]))
    ablation, _ = read_ablation(out)
    write_ablation(out, replace(ablation, tasks=(str(tasks),)))
    (key,) = [key for variant, seed, key in ablation.runs if (variant, seed) == ("base", 1)]
    folder = out / f"runs/base.1.{key[:8]}"
    folder.mkdir(parents=True)
    (folder / "model").symlink_to(model)
    answers = {"tasks": {f"{tmp_path.name}/tasks": {"answers": [{"said": "blue"}]}}}
    scores = {"trained_pathways": "both", "selection": "uniform", "pathways": {"both": answers}}
    (folder / "scores.json").write_text(json.dumps(scores))
    assert 'class="attended"' not in write_page(out).read_text()
    page = write_page(out, attend=True).read_text()
    assert page.count('class="attended"') == 1 and 'aria-label="attention: slow ' in page
    # a folder without its model is told
    (folder / "model").unlink()
    with pytest.raises(UserError):
        write_page(out, attend=True)


def test_plots_share_a_scale_and_name_what_they_show() -> None:
    one = AttendedFrame(pathway="slow", seconds=0.0, share=0.25)
    other = AttendedFrame(pathway="fast", seconds=2.0, share=0.5)
    found = plots({"a": [one], "b": [other], "c": []})
    assert found.keys() == {"a", "b"}
    assert 'height="11.0"' in found["a"] and 'height="22.0"' in found["b"]
    assert 'x="0.0"' in found["a"] and 'x="196.0"' in found["b"]
    assert told([one, other]) == "slow 25 %, fast 50 %" and plots({"c": []}) == {}
