# ruff: noqa: E501  (a table is read line by line)
"""Table M: what people get wrong at the keyboard, and the words that must stand in the answer.

Each is one command line in a small world (`make_world`). The answer is a line for each mistake on
standard error and status 2, within 1.5 seconds of CPU, before anything heavy is imported or started:
`python -m tests.hostile.mistakes WORLD` runs all of them, each in a fork of one process, and prints
a line of JSON for each.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import run_command

HEAVY = ("ray", "torch", "transformers", "deepspeed")
PROGRAMS = ("ffmpeg", "ffprobe", "bwrap")
NOBODY = 65534
LIGHT = {
    "shards": ("shards.__main__",),
    "mixtures": ("mixtures.__main__",),
    "pipeline": (
        *("pipeline.__main__", "pipeline.checks", "pipeline.rebuild", "pipeline.survey_told"),
        "pipeline.show_command",
    ),
    "train": (
        *("train.__main__", "train.config", "train.weights.start", "train.schedule"),
        "train.ablation.inputs",
    ),
}
"""What the commands import before they know of a mistake."""

RECIPE = """\
name: good
seed: 7
frames: {fps: 2, cap: 8, area: 16384, min_area: 4096}
text: {tokenizer: tokenizer.json}
pack_tokens: 512
pack_patches: 4096
pack_window: 8
sources:
  - {name: pictures, dataset: o/p, format: llava_json, annotations: p.json, media: media, licence: MIT, weight: 2}
  - {name: films, dataset: o/f, format: table, annotations: f.csv, columns: {question: q, answer: a, video: v}, media: media, licence: MIT, weight: 1}
"""
CONFIG = """\
vision: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64, position_grid: 4}
text: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, intermediate_size: 64, max_position_embeddings: 512}
stop: {steps: 2}
schedule: {warmup: 1}
"""
GRID = """\
recipe: r.yaml
config: c.yaml
pool: tiny/pool
seeds: [1, 2]
tasks: [t.json]
variants:
  - {name: more, times: {films: 2}}
  - {name: isf, config: {projector: isf}}
"""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A command line, what it is run with, and what its answer must say (`lines` of it).

    `files` are written before; of a user without rights, `closed` names what is not readable.
    """

    command: str
    says: str
    files: Mapping[str, str | bytes] | None = None
    lines: int = 1
    closed: str = ""
    path: str | None = None


def recipe(old: str, new: str) -> dict[str, str | bytes]:
    """The good recipe, with one thing changed, as `r.yaml`."""
    assert RECIPE.count(old) == 1, old
    return {"r.yaml": RECIPE.replace(old, new)}


def build(says: str, *changes: tuple[str, str], lines: int = 1, **more: Any) -> Mistake:
    """A build of the good recipe with these changes."""
    text = RECIPE
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    files = {"r.yaml": text} | more.pop("files", {})
    command = more.pop("command", "pipeline build r.yaml --out out")
    return Mistake(command=command, says=says, files=files, lines=lines, **more)


def config(says: str, old: str, new: str) -> Mistake:
    """A run of the good config with one change."""
    return Mistake(
        command="train run c.yaml --manifest tiny/build --out run",
        says=says,
        files={"c.yaml": CONFIG.replace(old, new)},
    )


def grid(says: str, old: str, new: str, lines: int = 1) -> Mistake:
    """An ablation of the good grid with one change."""
    assert GRID.count(old) == 1, old
    files = {"g.yaml": GRID.replace(old, new), "r.yaml": RECIPE, "c.yaml": CONFIG, "t.json": "[]"}
    return Mistake(command="train ablate g.yaml --out out", says=says, files=files, lines=lines)


def line(command: str, says: str, **more: Any) -> Mistake:
    return Mistake(command=command, says=says, **more)


MISTAKES: dict[str, Mistake] = {
    # a recipe's file
    "recipe: no such file": line("pipeline build nowhere.yaml --out out", "nowhere.yaml: No such"),
    "recipe: a folder": line("pipeline build media --out out", "media: Is a directory"),
    "recipe: not YAML": build("not a plain YAML", files={"r.yaml": "a: [b\n"}),
    "recipe: not UTF-8": build("not UTF-8 at byte 6", files={"r.yaml": b"name: \xff\xfe"}),
    "recipe: empty": build("r.yaml: ", files={"r.yaml": ""}),
    "recipe: tabs": build("not a plain YAML", ("seed: 7", "seed:\n\t7")),
    "recipe: an alias": build("aliases", ("seed: 7", "seed: &x 7")),
    "recipe: a key twice": build("duplicate key 'seed'", ("seed: 7", "seed: 7\nseed: 8")),
    # its keys
    "key: mistyped": build("unknown key 'sed'; did you mean 'seed'", ("seed: 7", "sed: 7")),
    "key: mistyped in a source": build("did you mean 'annotations'", ("annotations: p", "anotations: p")),
    "key: missing": build("the key 'name' is missing", ("name: good\n", "")),
    "key: a word for a number": build("seed: must be an integer", ("seed: 7", "seed: seven")),
    "key: without a value": build("seed: is empty", ("seed: 7", "seed:")),
    "key: out of bounds": build("frames: fps: must be", ("fps: 2", "fps: 0")),
    "key: three at once": build(
        "seed: must be", ("seed: 7", "sede: 7\nseed: x\nunit: words"), lines=3
    ),
    # its rules
    "rule: no sources": build("name at least one source", files={"r.yaml": RECIPE.partition("sources:")[0] + "sources: []\n"}),
    "rule: one name twice": build("two are named 'films'", ("name: pictures", "name: films")),
    "rule: weight and repeat": build("exactly one of weight", ("weight: 2", "weight: 2, repeat: 1")),
    "rule: no ratio": build("no ratio", (", weight: 1}", "}")),
    "rule: a stage of nobody": build("no source is named 'fils'", ("sources:", "stages: [{start: 2, weights: {fils: 1}}]\nsources:")),
    "rule: more frames than kept": build("the view asks for 900", ("cap: 8", "cap: 900")),
    "rule: a length of repeats": build("a repeat recipe has its own", ("weight: 2", "repeat: 2"), ("weight: 1}", "repeat: 1}"), ("seed: 7", "seed: 7\nlength: 9")),
    "rule: outside": build("outside the recipe's folder", ("annotations: p.json", "annotations: /etc/hostname")),
    # its formats
    "format: unknown": build("format of 'pictures' is 'lava_json'", ("format: llava_json", "format: lava_json")),
    "format: another one": build("not JSON|not a JSON list", ("annotations: p.json", "annotations: f.csv")),
    "format: broken off": build("p2.json: not JSON", ("p.json", "p2.json"), files={"p2.json": '[{"id": "a", "ima'}),
    "format: no row is read": build("none of the 2 records of", ("p.json", "p2.json"), files={"p2.json": '[{"q": 1}, {"q": 2}]'}),
    "columns: of another format": build("only of formats table", ("llava_json,", "llava_json, columns: {answer: a},")),
    "columns: without an answer": build("a table needs `answer`", ("answer: a, ", "")),
    "columns: not there": build("the header needs", ("answer: a", "answer: reply")),
    "columns: no such meaning": build("did you mean 'answer'", ("answer: a", "anser: a")),
    "dataset: unknown": build("is not in the catalogue", ("format: llava_json, annotations: p.json, ", "")),
    "dataset: another licence": build("the catalogue says", ("dataset: o/p, format: llava_json, annotations: p.json", "dataset: llava-hound")),
    # what it names
    "annotations: not there": build("p1.json: no such file", ("p.json", "p1.json")),
    "annotations: a folder": build("name the files in it", ("p.json", "media")),
    "annotations: no file fits": build("no file fits the pattern", ("annotations: p.json", 'annotations: "p-*.json"')),
    "annotations: another scheme": build("is no address", ("p.json", "ftp://h/p.json")),
    "annotations: not public": build("localhost", ("p.json", "https://localhost/p.json")),
    "annotations: closed": build("p.json: not readable", closed="p.json"),
    "media: not there": build("pics: no such file or folder", ("p.json, media: media", "p.json, media: pics")),
    "media: a file": build("p.json: not a folder|is in p.json", ("p.json, media: media", "p.json, media: p.json")),
    "media: another folder": build("none of its first 2 media is in other", ("p.json, media: media", "p.json, media: other")),
    "media: not named": build("says nowhere where they lie", ("p.json, media: media", "p.json")),
    "media: closed": build("media: not readable", closed="media", lines=2),
    "tokenizer: not there": build("tok.json: no such file", ("tokenizer.json", "tok.json")),
    "tokenizer: none": build("not a tokenizer.json", ("tokenizer.json", "p.json")),
    "tokenizer: of a branch": build("not of the form", ("tokenizer.json", "hf://Qwen/Qwen2.5-7B/tokenizer.json")),
    "leaks: no index": build("leaks build", ("seed: 7", "seed: 7\nleaks: {index: leaks}")),
    "exclude: not there": build("gone.jsonl", ("seed: 7", "seed: 7\nexclude: gone.jsonl")),
    "two files at once": build("no such file", ("p.json", "p1.json"), ("f.csv", "f1.csv"), lines=2),
    # where it goes
    "out: a file": build("p.json: cannot write here", command="pipeline build r.yaml --out p.json", lines=2),
    "out: closed": build("sealed/out: cannot write here", command="pipeline build r.yaml --out sealed/out --pool out/pool", closed="sealed"),
    "pool: closed": build("sealed/pool: cannot write here", command="pipeline build r.yaml --out out --pool sealed/pool", closed="sealed"),
    "pool: of another profile": build("this pool keeps", command="pipeline build r.yaml --out out --pool tiny/pool"),
    "pool: damaged": build("profile.json", command="pipeline build r.yaml --out out --pool torn", files={"torn/profile.json": "{}"}),
    "shards: of before": build("leave out --no-shards", command="pipeline build r.yaml --out out --no-shards", files={"out/shards/receipt.json": "{}"}),
    "allow-path: relative": build("not an absolute path", command="pipeline build r.yaml --out out --allow-path other"),
    "allow-path: not there": build("no such folder on", command="pipeline build r.yaml --out out --allow-path /nowhere"),
    "tools: none": build("ffmpeg", path="", lines=2),
    # other commands of the pipeline
    "an option: mistyped": line("pipeline build r.yaml --ouut out", "required: --out"),
    "an option: unknown": line("pipeline build r.yaml --out out --fast", "unrecognized arguments: --fast"),
    "retry: no code": line("pipeline build r.yaml --out out --retry MEDIA_SLOW", "is MEDIA_TOO_SLOW"),
    "retry: not of media": line("pipeline build r.yaml --out out --retry ROW_EMPTY", "no code of media"),
    "retry: nothing": line("pipeline build r.yaml --out out --retry", "expected at least one argument"),
    "a command: mistyped": line("pipeline biuld r.yaml", "did you mean 'build'"),
    "init: no folder": line("pipeline init nowhere --for scratch", "nowhere: not a folder"),
    "init: nothing there": line("pipeline init other --for scratch", "no annotations here"),
    "init: for what": line("pipeline init media --for qwen", "did you mean 'qwen2.5'"),
    "init: there already": line("pipeline init own --for scratch", "is there already", files={"own/recipe.yaml": "", "own/a.json": '[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]'}),
    "rebuild: no lock": line("pipeline rebuild gone.lock.json --pool pool", "gone.lock.json: not there"),
    "rebuild: a damaged lock": line("pipeline rebuild l.json --pool pool", "l.json", files={"l.json": "{}"}),
    "rebuild: a root alone": line("pipeline rebuild l.json --pool pool --root a", "write OLD=NEW"),
    "pack: no manifest": line("pipeline pack gone.json --data tiny/pool --out s", "gone.json: not there"),
    "pack: no pool": line("pipeline pack tiny/build --data media --out s", "not a pool"),
    "pack: another file": line("pipeline pack p.json --data tiny/pool --out s", "not a manifest"),
    "report: no build": line("pipeline report media", "not there"),
    "show: no build": line("pipeline show media --source films", "no manifest.json here"),
    "show: nothing asked": line("pipeline show tiny/build", "give --key, --source or --refused"),
    "show: an unknown source": line("pipeline show tiny/build --pool tiny/pool --source films", "the build has pictures, clips"),
    "show: an unknown code": line("pipeline show tiny/build --pool tiny/pool --refused MEDIA", "no code"),
    "show: no digits": line("pipeline show tiny/build --pool tiny/pool --key p0", "hex digits"),
    "show: none of them": line("pipeline show tiny/build --pool tiny/pool -n 0 --source clips", "-n 0: give 1 or more"),
    "compact: no pool": line("pipeline compact media", "not a pool"),
    "pool: a word": line("pipeline pool cg tiny/pool", "did you mean 'gc'"),
    "pool ls: no pool": line("pipeline pool ls media", "not a pool"),
    "pool ls: no manifest": line("pipeline pool ls tiny/pool --manifests gone", "gone/manifest.json: not there"),
    "pool gc: nothing to keep": line("pipeline pool gc tiny/pool", "required: --keep"),
    "pool gc: another file": line("pipeline pool gc tiny/pool --keep p.json --remove", "not a manifest"),
    "pool gc: a build writes": line("pipeline pool gc tiny/pool --keep tiny/build --remove", "is being written to", files={"tiny/pool/leases/writing-a-1-b": ""}),
    "pool gc: closed": line("pipeline pool gc tiny/pool --keep tiny/build --remove", "Permission denied", closed="tiny/pool/leases", files={"tiny/pool/leases/x": ""}),
    "pool export: not empty": line("pipeline pool export tiny/pool --manifest tiny/build --out out", "holds something else", files={"out/README.md": "mine"}),
    "pool export: of another pool": line("pipeline pool export torn --manifest tiny/build --out out", "holds no source 'pictures'|another profile|profile.json", files={"torn/profile.json": "{}"}),
    "score: no such scorer": line("pipeline score tiny/pool --scorer sharp:ness --per frame", "no such module here; give MODULE:FUNCTION"),
    "score: none of ours": line("pipeline score tiny/pool --scorer pipeline.scorers:motionn --per frame", "there are brightness, caption_length"),
    "score: not per sample": line("pipeline score tiny/pool --scorer pipeline.scorers:motion --per sample", "add --per frame"),
    "score: per what": line("pipeline score tiny/pool --scorer pipeline.scorers:motion --per frames", "did you mean 'frame'"),
    "score: no pool": line("pipeline score media --scorer pipeline.scorers:motion --per frame", "not a pool"),
    "leaks: no file": line("pipeline leaks build gone.yaml --out leaks", "gone.yaml: No such file"),
    "leaks: a key": line("pipeline leaks build b.yaml --out leaks", "unknown key", files={"b.yaml": "benchmark: []\n"}, lines=1),
    "leaks: a copy of nothing": line("pipeline leaks build b.yaml --out leaks", "not in the catalogue", files={"b.yaml": "benchmarks: [{name: mme, copy: media}]\n"}),
    # mixtures and shards
    "plan: no pool": build("not a pool", command="mixtures plan r.yaml --pool media --out new"),
    "plan: sources of another": build("the pool tiny/pool keeps", command="mixtures plan r.yaml --pool tiny/pool --out new"),
    "plan: a score of nobody": build("the pool tiny/pool keeps|holds no scores", ("weight: 2", "weight: 2, filters: {scores.blur: {min: 1}}"), command="mixtures plan r.yaml --pool tiny/pool --out new"),
    "plan: a score of no kind": build("must be scores.NAME, or of frames", ("weight: 2", "weight: 2, filters: {scores.blur.median: {min: 1}}"), command="mixtures plan r.yaml --pool tiny/pool --out new"),
    "plan: closed": build("cannot write here", command="mixtures plan r.yaml --pool tiny/pool --out sealed/new", closed="sealed"),
    "diff: no manifest": line("mixtures diff tiny/build gone", "gone/manifest.json"),
    "diff: another file": line("mixtures diff tiny/build p.json", "not a manifest"),
    "explain: a rank too many": line("mixtures explain tiny/build --step 0 --rank 2 --world-size 2", "--world-size"),
    "explain: a negative step": line("mixtures explain tiny/build --step -1 --rank 0 --world-size 1", "--step >= 0"),
    "explain: no pool": line("mixtures explain tiny/build --step 0 --rank 0 --world-size 1 --pool media", "not a pool"),
    "verify: no shards": line("shards verify media", "no receipt.json here"),
    # training
    "run: no config": line("train run gone.yaml --manifest tiny/build --out run", "gone.yaml: No such file"),
    "run: a key": config("did you mean 'hidden_size'", "vision: {hidden_size", "vision: {hiden_size"),
    "run: two ends": config("write one of steps, tokens, epochs", "{steps: 2}", "{steps: 2, epochs: 1}"),
    "run: no manifest": line("train run c.yaml --manifest gone --out run", "gone/manifest.json", files={"c.yaml": CONFIG}),
    "run: no weights": line("train run c.yaml --manifest tiny/build --out run --init-from gone", "gone", files={"c.yaml": CONFIG}),
    "run: no such part": line("train run c.yaml --manifest tiny/build --out run --init towr=x", "write PART=FOLDER", files={"c.yaml": CONFIG}),
    "run: into a bucket": line("train run c.yaml --manifest tiny/build --out s3://b/run", "give a folder on a disk"),
    "run: nothing said": line("train run c.yaml", "give --manifest and --out", files={"c.yaml": CONFIG}),
    "run: no data": line("train run c.yaml --manifest alone --out run --data gone", "gone: neither a pool", files={"c.yaml": CONFIG}),
    "run: data not said": line("train run c.yaml --manifest alone --out run", "give --data", files={"c.yaml": CONFIG}),
    "run: a warm-up beyond the end": config("do not fit into 2 steps", "warmup: 1", "warmup: 9"),
    # ablations
    "grid: not there": line("train ablate gone.yaml --out out", "gone.yaml: No such file"),
    "grid: a key": grid("unknown key 'seds'; did you mean 'seeds'", "seeds: [1, 2]", "seds: [1, 2]"),
    "grid: a key of the recipe": grid("recipe: unknown key 'duplicats'; did you mean 'duplicates'", "times: {films: 2}", "recipe: {duplicats: keep}"),
    "grid: a key of the config": grid("config: unknown key 'projectr'; did you mean 'projector'", "{projector: isf}", "{projectr: isf}"),
    "grid: no such source": grid("no source is named 'film'; did you mean 'films'", "films: 2", "film: 2"),
    "grid: the same twice": grid("is the same as 'base'", "{projector: isf}", "{projector: gsf}"),
    "grid: one name twice": grid("2 are named 'more'", "name: isf", "name: more"),
    "grid: no pool": grid("gone: neither a pool", "tiny/pool", "gone"),
    "grid: no tasks": grid("gone.json: no such file", "t.json", "gone.json"),
    "grid: two at once": grid("gone.yaml: No such file|neither a pool", "recipe: r.yaml\nconfig: c.yaml\npool: tiny/pool", "recipe: gone.yaml\nconfig: c.yaml\npool: gone", lines=2),
    "ablate: into a bucket": line("train ablate g.yaml --out s3://b/out", "give a folder on a disk"),
    "ablate: a negative number": line("train ablate gone.yaml --out out --at-once -1", "numbers of at least 1"),
    "report: no ablation": line("train report media", "give the --out of `train ablate`"),
    "suggest: no ablation": line("train suggest media", "give the --out of `train ablate`"),
    "assemble: no recipe": line("train assemble --decoder d --tower t --recipe gone.yaml --out start", "gone.yaml: no such file"),
    "export: no checkpoint": line("train export gone --out model", "gone"),
    "watch: no run": line("train watch media", "give the --out of a run"),
    "reproduce: no run": line("train reproduce gone/run.json --pool tiny/pool", "gone/run.json"),
    "diff: no run": line("train diff gone other", "gone"),
    "evaluate: nothing said": line("train evaluate", "give --model, --out"),
    "evaluate: no model": line("train evaluate --model gone --tasks t.json --out s.json", "gone", files={"t.json": "[]"}),
    "evaluate: no tasks": line("train evaluate --model m --tasks gone.json --out s.json", "gone.json: no such file", files={"m/data.json": "{}"}),
    "evaluate: an unknown set": line("train evaluate --model m --benchmark mme=media --out s.json", "is none of", files={"m/data.json": "{}"}),
    "evaluate: no copy": line("train evaluate --model m --benchmark video_mme=gone --out s.json", "no such folder", files={"m/data.json": "{}"}),
    "chat: no model": line("train chat --model gone --image media/0.png --question Why?", "gone"),
    "chat: no image": line("train chat --model m --image gone.png --question Why?", "gone.png: no such file", files={"m/data.json": "{}"}),
    "model: no such size": line("train model --size 2b", "invalid choice: '2b'"),
}  # fmt: skip


def make_world(root: Path) -> None:
    """The files that the command lines name; `tiny` holds a small pool and its manifest."""
    from mixtures.tokens.text import train_tokenizer
    from tests.support.small_world import picture, row
    from tests.support.tiny_pool import tiny_manifest

    for name in ("media", "other", "sealed"):
        (root / name).mkdir()
    for number in range(2):
        picture(root / f"media/{number}.png", number)
        (root / f"media/{number}.mp4").write_bytes(b"not looked into")
    rows = [row(f"p{n}", "image", f"{n}.png", f"What is {n}?", "this") for n in range(2)]
    (root / "p.json").write_text(json.dumps(rows))
    (root / "f.csv").write_text("v,q,a\n0.mp4,What?,This.\n1.mp4,Why?,So.\n")
    (root / "tokenizer.json").write_bytes(train_tokenizer(["What is this? So."] * 4, 320))
    tiny_manifest(root / "tiny")
    shutil.copytree(root / "tiny/build", root / "alone")


# The runner --------------------------------------------------------------------


def main() -> None:
    """Run every mistake in a copy of the world; a line of JSON each on standard output."""
    world = Path(sys.argv[1]).resolve()
    started: list[str] = []
    sys.addaudithook(lambda event, given: _note(started, event, given))
    costs = _import_all(world)
    gc.freeze()
    for name, mistake in MISTAKES.items():
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            found = _run(mistake, world, started)
            os.write(writer, json.dumps({"name": name, **found}).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            told = json.loads(answer.read())
        os.waitpid(child, 0)
        told["cpu"] = round(told["cpu"] + costs[mistake.command.partition(" ")[0]], 3)
        sys.stdout.write(json.dumps(told) + "\n")


def _import_all(world: Path) -> dict[str, float]:
    """CPU seconds that a command line of each package pays for imports and first uses."""
    from mixtures.recipe.load import load_recipe

    for name in (*LIGHT["shards"], *LIGHT["mixtures"]):
        importlib.import_module(name)
    os.chdir(world)
    Path("r.yaml").write_text(RECIPE)
    Path("c.yaml").write_text(CONFIG)
    load_recipe(Path("r.yaml"))
    # a codec of Python's own files, which a user without rights may not be let to read
    b"a".decode("utf-8-sig")
    common = time.process_time()
    costs = dict.fromkeys(LIGHT, common)
    for package in ("pipeline", "train"):
        before = time.process_time()
        for name in LIGHT[package]:
            importlib.import_module(name)
        if package == "train":
            from train.config import load_config

            load_config(Path("c.yaml"))
        costs[package] = common + time.process_time() - before
    return costs


def _note(started: list[str], event: str, given: tuple[Any, ...]) -> None:
    """Remember the programs that are started."""
    if event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
        started.append(Path(str(given[0])).name)


def _run(mistake: Mistake, world: Path, started: list[str]) -> dict[str, Any]:
    """What one command line says; in a process of its own."""
    folder = world.with_name(f"{world.name}-{os.getpid()}")
    # links: what is written is written anew, and only where nobody may enter are owners changed
    shutil.copytree(world, folder, copy_function=shutil.copy2 if mistake.closed else os.link)
    for name, content in (mistake.files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.chdir(folder)
    if mistake.path is not None:
        os.environ["PATH"] = mistake.path
    os.environ["SLOWFAST_CACHE"] = str(folder / "cache")
    if mistake.closed:
        _as_nobody(folder, mistake.closed)
    started.clear()
    before = _cpu()
    status, said = _told(mistake.command.split())
    found = {
        "status": status,
        "said": said,
        "cpu": _cpu() - before,
        "heavy": [name for name in HEAVY if name in sys.modules],
        "started": [name for name in started if name in PROGRAMS],
    }
    if os.geteuid() == 0:
        shutil.rmtree(folder)
    return found


def _as_nobody(folder: Path, closed: str) -> None:
    """Go on as a user who may do anything in the folder but use what is closed."""
    for path in (folder, *folder.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    (folder / closed).chmod(0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _told(words: list[str]) -> tuple[int, str]:
    """(status, standard error) of `python -m PACKAGE ...`."""
    package, *rest = words
    command: Callable[[], None] = importlib.import_module(f"{package}.__main__").main
    sys.argv = [f"python -m {package}", *rest]
    said = io.StringIO()
    status = 0
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            run_command(command)
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException as error:  # a traceback is the answer that nobody should get
        status, text = 1, f"{type(error).__name__}: {error}"
        said.write(text)
    return status, said.getvalue()


if __name__ == "__main__":
    main()
