"""Every projector trained on the demo in both stages, and scored: one table, same steps, same data.

Needs the pool of a finished `make demo`. Each projector trains stage 1 on images and stage 2 on
images and videos, from nothing, as the demo's own model does, over manifests of its own arrangement
(planning decodes nothing). About five minutes each on two cores; one that has its scores is not
trained again: delete runs/demo/projectors/NAME to repeat it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least
from benchmarks.training.floors import command
from examples.demo import OUT, POOL
from examples.outcome import IMAGES, VIDEOS, video_types
from mixtures.recipe.strict_yaml import load_yaml
from shards.errors import UserError

RECIPES = {
    "gsf": "demo_stage2",
    "isf": "demo_isf",
    "avgpool": "demo_stage2_fast_only",
    "v1": "demo_v1",
    "dynamic_compressor": "demo_stage2",
    "attn_meanq": "demo_stage2",
    "perceiver": "demo_queries",
    "qformer": "demo_queries",
    "memory": "demo_memory",
}
"""The recipe of each projector's second stage; its config is train/configs/demo_NAME.yaml."""
HOME = OUT / "projectors"
TASKS = (OUT / "data/scenes/test.json", OUT / "data/digits/test.parquet")


def run(console: Console) -> list[Bar]:
    if not (OUT / "metrics.json").exists():
        raise UserError(f"{OUT}: no finished demo here; run make demo first")
    floor = json.loads((OUT / "metrics.json").read_text())
    highest = max(floor["video_accuracy_majority"], floor["video_accuracy_no_vision"])
    found = {name: scores_of(name) for name in RECIPES}
    console.print(table(found))
    return [
        at_least(
            f"{name}: video accuracy, low end of 95 %, above majority and no vision",
            round(each["tasks"][VIDEOS]["all"]["low"] - highest, 9),
            0.0,
        )
        for name, each in found.items()
    ]


def scores_of(name: str) -> dict[str, Any]:
    """Held-out scores of a projector, trained if they are not there yet."""
    home, scores = HOME / name, HOME / name / "scores.json"
    if not scores.exists():
        start = time.monotonic()
        both_stages(name, home)
        model = ("--model", home / "train2/model")
        command("train", "evaluate", *model, "--tasks", *TASKS, "--out", home / "found.json")
        found = json.loads((home / "found.json").read_text())
        found["wall_seconds"] = time.monotonic() - start
        (home / "found.json").write_text(json.dumps(found))
        (home / "found.json").rename(scores)
    value = json.loads(scores.read_text())
    each: dict[str, Any] = value["pathways"][value["trained_pathways"]]
    return each | {"wall_seconds": value["wall_seconds"]}


def both_stages(name: str, home: Path) -> None:
    """Plan and train stage 1, then stage 2 from its weights."""
    home.mkdir(parents=True, exist_ok=True)
    config = "demo_stage2" if name == "gsf" else f"demo_{name}"
    recipes = (stage1_recipe(name, home), Path(f"mixtures/{RECIPES[name]}.yaml"))
    configs = (stage1_config(config, home), Path(f"train/configs/{config}.yaml"))
    start: tuple[str | Path, ...] = ()
    for stage, (recipe, config_file) in enumerate(zip(recipes, configs, strict=True), 1):
        manifest, out = home / f"stage{stage}/manifest.json", home / f"train{stage}"
        command("mixtures", "plan", recipe, "--pool", POOL, "--out", manifest)
        command(
            *("train", "run", config_file, "--manifest", manifest, "--data", POOL),
            *("--out", out, *start),
        )
        start = ("--init-from", out / "model")


def stage1_recipe(name: str, home: Path) -> Path:
    """The demo's first stage, laid out as this projector's second."""
    second = load_yaml(Path(f"mixtures/{RECIPES[name]}.yaml"))
    first = load_yaml(Path("mixtures/demo_stage1.yaml"))
    laid_out = {"name": f"{name}_stage1", "layout": second["layout"], "frames": second["frames"]}
    return written(home / "stage1.yaml", first | laid_out)


def stage1_config(config: str, home: Path) -> Path:
    """The demo's first training, with this projector."""
    own = load_yaml(Path(f"train/configs/{config}.yaml"))
    first = load_yaml(Path("train/configs/demo_stage1.yaml"))
    return written(home / "train1.yaml", first | {"projector": own.get("projector", "gsf")})


def written(path: Path, value: dict[str, Any]) -> Path:
    """As JSON, which is YAML."""
    path.write_text(json.dumps(value, default=float, indent=1))
    return path


def table(found: dict[str, dict[str, Any]]) -> Table:
    kinds = video_types(next(iter(found.values())))
    made = Table("projector", "images", "videos", *kinds, "minutes")
    for name, each in found.items():
        tasks = each["tasks"]
        cells = [tasks[IMAGES]["all"], tasks[VIDEOS]["all"]]
        cells += [tasks[VIDEOS]["types"][kind] for kind in kinds]
        shown = [f"{cell['accuracy']:.3f}" for cell in cells]
        made.add_row(name, *shown, f"{each['wall_seconds'] / 60:.1f}")
    return made
