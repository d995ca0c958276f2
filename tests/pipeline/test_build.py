"""The main path with real Ray, real ffmpeg and real tars: what a build publishes, and resuming."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from shards.envelope import Envelope
from shards.index import REFUSED, read_table
from shards.pool import Pool
from shards.reader import PoolReader, ShardReader
from shards.store import Store
from shards.verify import damage
from tests.support import small_world
from tests.support.small_world import books_of

ROOT = Path(__file__).resolve().parents[2]

SEALED = Envelope(schema="slowfast-mix/receipt/2", if_damaged="", if_outdated="")


@dataclass(frozen=True)
class World:
    root: Path
    recipe: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def pool(self) -> Path:
        return self.root / "pool"

    def manifest_id(self) -> str:
        return str(json.loads((self.out / "manifest.json").read_text())["manifest_id"])

    def refusals(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(
            (self.out / "refused.parquet").read_bytes(), "refused.parquet"
        ).to_pylist()
        return rows

    def shards(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes() for path in sorted((self.out / "shards").glob("*.tar"))
        }


def command(world: World, *more: str) -> list[str]:
    words = ["build", str(world.recipe), "--out", str(world.out), "--pool", str(world.pool)]
    return [sys.executable, "-m", "pipeline", *words, *more]


def build(world: World, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(world, *more), cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    world = World(root, small_world.make(root))
    done = build(world)
    assert done.returncode == 0, done.stderr
    assert "manifest_id" in done.stdout
    return world


def test_every_refusal_has_its_reason_and_nothing_else_is_refused(world: World) -> None:
    found = {(row["source"], row["record"]): row["code"] for row in world.refusals()}
    twin = {("pictures", "p0"), ("pictures", "p-copy")} & set(found)
    assert len(twin) == 1
    found[("pictures", "p-copy")] = found.pop(twin.pop())
    assert found == small_world.EXPECTED
    assert list(world.refusals()[0]) == REFUSED.names


def test_the_books_balance(world: World) -> None:
    books = books_of(world.out)
    assert books["pictures"]["records"] == 20
    assert books["films"]["records"] == 6
    written = Counter(row["source"] for row in world.refusals())
    for name, row in books.items():
        refused = row["records_refused"] + row["samples_refused"] + row["not_chosen"]
        assert refused == written[name]
        assert row["records"] - refused == row["chosen"] == row["drawn"]


def test_a_build_whose_count_was_tampered_with_publishes_nothing(
    world: World, tmp_path: Path
) -> None:
    other = World(tmp_path, world.recipe)
    shutil.copytree(world.pool, other.pool)
    for path in (other.pool / "receipts").iterdir():
        receipt = SEALED.unseal(path.read_bytes(), str(path))
        if receipt["stage"] == "admit" and receipt["parameters"]["source"] == "films":
            receipt["counts"]["records"] += 1
            path.write_bytes(SEALED.seal(receipt))
    done = build(other)
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "books of 'films' do not balance" in said and "nothing was published" in said
    left = {path.name for path in other.out.rglob("*")}
    # what became of the records, and no manifest
    assert left == {"books.json", "refused.parquet", "leaks.parquet", "report.html"}


def test_without_shards_there_is_a_manifest_and_a_page(world: World, tmp_path: Path) -> None:
    other = World(tmp_path, world.recipe)
    shutil.copytree(world.pool, other.pool)
    done = build(other, "--no-shards")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in other.out.iterdir()}
    assert "shards" not in names and {"manifest.json", "report.html"} <= names
    assert other.manifest_id() == world.manifest_id()
    refused = build(world, "--no-shards")
    assert refused.returncode == 2 and "leave out --no-shards" in refused.stderr


def index_of(world: World) -> list[dict[str, object]]:
    path = world.out / "shards/index.parquet"
    rows: list[dict[str, object]] = read_table(path.read_bytes(), str(path)).to_pylist()
    return rows


def test_pool_and_shards_hold_the_same_samples_in_draw_order(world: World) -> None:
    manifest = load_manifest(str(world.out / "manifest.json"))
    draws, pool = Draws(manifest), PoolReader(Pool(str(world.pool)))
    shards = ShardReader(Store(world.out / "shards"))
    assert manifest.length == len(index_of(world)) == 60
    for position in range(manifest.length):
        drawn = draws.sample(position)
        stored = shards.read(drawn.source, drawn.key)
        assert (stored.sample.source, stored.sample.key) == (drawn.source, drawn.key)
        assert stored == pool.read(drawn.source, drawn.key)
    assert not list(damage(str(world.out / "shards")))


def test_prefixes_and_windows_of_the_shards_have_the_ratio(world: World) -> None:
    sources = [row["source"] for row in index_of(world)]
    for stop in range(len(sources) + 1):
        pictures = sources[:stop].count("pictures")
        assert abs(pictures - 0.75 * stop) <= 1


STOCK = """
import json, sys, webdataset
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False, empty_check=False):
    told = json.loads(sample["json"])
    assert len(sample["mjpeg"]) == sum(sum(clip["nbytes"]) for clip in told["clips"])
    print(sample["__key__"], told["source"], told["key"])
"""


def test_stock_webdataset_reads_every_sample(world: World, tmp_path: Path) -> None:
    urls = [str(path) for path in sorted((world.out / "shards").glob("*.tar"))]
    done = subprocess.run(
        [sys.executable, "-c", STOCK, *urls], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    manifest = load_manifest(str(world.out / "manifest.json"))
    drawn = Draws(manifest).samples(0, manifest.length)
    assert done.stdout.split("\n")[:-1] == [
        f"{each.position:012d}_{each.key} {each.source} {each.key}" for each in drawn
    ]


def test_hugging_face_datasets_reads_every_sample(world: World, tmp_path: Path) -> None:
    code = (
        "import sys, datasets\n"
        "found = datasets.load_dataset('webdataset', data_files=sys.argv[2:], split='train',"
        " streaming=True)\n"
        "print(sum(1 for row in found if row['json']['schema'] and '__key__' in row))\n"
    )
    urls = [str(path) for path in sorted((world.out / "shards").glob("*.tar"))]
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, "", *urls], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "60", done.stderr


def test_a_second_build_does_nothing_again(world: World) -> None:
    before, identity, shards = receipts(world), world.manifest_id(), world.shards()
    done = build(world)
    assert done.returncode == 0, done.stderr
    assert (receipts(world), world.manifest_id(), world.shards()) == (before, identity, shards)


def receipts(world: World) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (world.pool / "receipts").iterdir()}


def test_an_ablation_needs_no_build_and_shares_the_order(world: World) -> None:
    other = small_world.recipe(world.root, "other.yaml", pictures=1)
    manifest = world.root / "ablation/manifest.json"
    words = ["plan", str(other), "--pool", str(world.pool), "--out", str(manifest)]
    done = subprocess.run(
        [sys.executable, "-m", "mixtures", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = load_manifest(str(manifest)), load_manifest(str(world.out / "manifest.json"))
    assert ours.manifest_id != theirs.manifest_id
    kept = [[source.content_id for source in m.contents.sources] for m in (ours, theirs)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed: 5", "sede: 5"), "sede"),
        (("pictures.json", "nothing.json"), "nothing.json"),
        (("tokenizer.json", "no-tokenizer.json"), "no-tokenizer.json"),
        (
            (
                "format: llava_json, annotations: {root}/films",
                "format: lava, annotations: {root}/films",
            ),
            "lava",
        ),
        (("length: 60", "length: 60000000000000"), "length"),
    ],
)
def test_a_wrong_recipe_is_one_line_and_nothing_is_written(
    world: World, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    old, new = (part.format(root=world.root) for part in change)
    recipe = world.root / "wrong.yaml"
    recipe.write_text(world.recipe.read_text().replace(old, new))
    wrong = World(tmp_path, recipe)
    done = build(wrong)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not wrong.out.exists() and not wrong.pool.exists()


def test_a_missing_ffmpeg_is_said_before_any_work(world: World, tmp_path: Path) -> None:
    bare = World(tmp_path, world.recipe)
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command(bare), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    told = [line.split(" (")[0] for line in done.stderr.splitlines()]
    assert told == [f"error: {tool}: not found; install it" for tool in ("ffmpeg", "ffprobe")]
    assert not bare.pool.exists()


def test_an_unwritable_output_is_said_before_any_work(world: World, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file stands where the folder should be")
    done = build(World(tmp_path, world.recipe))
    assert done.returncode == 2
    assert str(tmp_path / "out") in done.stderr


def kill_and_rerun(world: World, home: Path, seconds: float) -> str:
    """Start a build, SIGKILL its driver after a while, rerun; the manifest_id it ends with."""
    again = World(home, world.recipe)
    first = subprocess.Popen(
        command(again), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = build(again)
    assert done.returncode == 0, done.stderr
    assert again.shards() == world.shards()
    names = {path.name for path in home.rglob("*") if path.is_file()}
    assert not {name for name in names if name.endswith(".json.tmp")}
    found = again.manifest_id()
    shutil.rmtree(home)
    return found


def test_a_killed_build_ends_with_the_same_manifest(world: World, tmp_path: Path) -> None:
    assert kill_and_rerun(world, tmp_path / "killed", 9.0) == world.manifest_id()


@pytest.mark.faults
def test_ten_kills_at_ten_moments_end_with_the_same_manifest(world: World, tmp_path: Path) -> None:
    started = time.monotonic()
    calm = World(tmp_path / "calm", world.recipe)
    assert build(calm).returncode == 0
    whole = time.monotonic() - started
    for moment in range(10):
        home = tmp_path / f"killed{moment}"
        assert kill_and_rerun(world, home, whole * (moment + 0.5) / 10) == world.manifest_id()


def test_a_shard_is_an_ordinary_tar(world: World) -> None:
    data = next(iter(world.shards().values()))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert names[0].startswith("000000000000_") and names[0].endswith(".json")
    assert [name.rsplit(".", 1)[1] for name in names] == ["json", "mjpeg"] * 60
