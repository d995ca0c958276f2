"""A build over archives, a hub and licences, from the command line to the books."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mixtures.tokens.text import train_tokenizer
from shards.index import FETCHED, MEMBERS, read_table
from shards.pool import Pool
from tests.support.archives import tarred, zipped
from tests.support.fake_hub import COMMIT, REPO, serve
from tests.support.small_world import SHOWN, books_of, film, picture, row

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (
    SHOWN
    + """\
name: small
seed: 5
pack_window: 32
max_shard_bytes: 10000000
allow_licences: [CC0-1.0]
sources:
  - {{name: pictures, dataset: small/pictures, format: llava_json, annotations: {root}/pictures.json, archives: ["{root}/parts.tar.gz_part_*"], licence: CC0-1.0, repeat: 1}}
  - {{name: films, dataset: small/films, format: llava_json, annotations: "hf://datasets/maker/films/*.json", archives: ["hf://datasets/maker/films/*.zip"], licence: CC0-1.0, repeat: 1}}
  - {{name: closed, dataset: small/closed, format: llava_json, annotations: {root}/closed.json, archives: ["{root}/parts.tar.gz_part_*"], licence: CC-BY-NC-4.0, repeat: 2}}
  - {{name: mixed, dataset: small/mixed, format: llava_json, annotations: {root}/mixed.json, archives: ["{root}/parts.tar.gz_part_*"], licence: CC0-1.0, repeat: 1}}
held_out:
  - {{name: exam, dataset: exam, format: llava_json, annotations: {root}/exam.json, archives: [{{at: "{root}/exam.zip", under: exam}}]}}
"""  # noqa: E501
)


def make(root: Path) -> dict[str, bytes]:
    """Local archives and annotations under `root`; returns what the hub holds."""
    media = {}
    for number in range(8):
        picture(root / "x.jpg", number)
        media[f"pictures/{number}.jpg"] = (root / "x.jpg").read_bytes()
    whole = tarred(root / "whole.tar.gz", media).read_bytes()
    for letter, piece in zip("ab", (whole[:20_000], whole[20_000:]), strict=True):
        (root / f"parts.tar.gz_part_a{letter}").write_bytes(piece)

    def ask(file: str, who: str, numbers: range, **more: str) -> None:
        rows = [
            row(f"{who}{n}", "image", f"pictures/{n}.jpg", f"Which {who} is {n}?", "this") | more
            for n in numbers
        ]
        (root / file).write_text(json.dumps(rows))

    ask("pictures.json", "p", range(9))
    ask("closed.json", "c", range(3))
    free = row("c9", "image", "pictures/6.jpg", "Free?", "y") | {"license": "CC0-1.0"}
    (root / "closed.json").write_text(
        json.dumps([*json.loads((root / "closed.json").read_text()), free])
    )
    ask("mixed.json", "m", range(2), license="CC-BY-NC-4.0")
    own = json.loads((root / "mixed.json").read_text())
    (root / "mixed.json").write_text(
        json.dumps([*own, row("m9", "image", "pictures/5.jpg", "?", "y")])
    )
    zipped(root / "exam.zip", {"7.jpg": media["pictures/7.jpg"]})
    (root / "exam.json").write_text(json.dumps([row("e", "image", "exam/7.jpg", "Held?", "out")]))
    films = {}
    for number in range(3):
        film(root / "x.mp4", number)
        films[f"v/{number}.mp4"] = (root / "x.mp4").read_bytes()
    asked = [row(f"f{n}", "video", f"v/{n}.mp4", f"Film {n}?", f"film {n}") for n in range(3)]
    (root / "tokenizer.json").write_bytes(
        train_tokenizer(["Which is it? Film, this, out"] * 9, 320)
    )
    return {
        "films.zip": zipped(root / "films.zip", films).read_bytes(),
        "one.json": json.dumps(asked[:2]).encode(),
        "two.json": json.dumps(asked[2:]).encode(),
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(root, what the command printed) after a build from a hub that is then gone."""
    root = tmp_path_factory.mktemp("archives")
    files = make(root)
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))
    with serve(files) as hub:
        done = build(root, hub.url)
    assert done.returncode == 0, done.stderr
    return root, done.stdout


def build(root: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "SLOWFAST_CACHE": str(root / "cache"),
        "COLUMNS": "150",
    }
    command = [sys.executable, "-m", "pipeline", "build", str(root / "recipe.yaml")]
    return subprocess.run(
        [*command, "--out", str(root / "out"), "--pool", str(root / "pool")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def refusals(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(
        (root / "out/refused.parquet").read_bytes(), "refused.parquet"
    ).to_pylist()
    return rows


def test_every_refusal_has_its_reason(built: tuple[Path, str]) -> None:
    found = Counter((row["source"], row["code"]) for row in refusals(built[0]))
    assert found == {
        ("pictures", "MEDIA_MISSING"): 1,
        ("pictures", "LEAK_MEDIA"): 1,
        ("closed", "LICENCE_REFUSED"): 3,
        ("mixed", "LICENCE_REFUSED"): 2,
    }


def test_the_books_show_what_the_licences_refused(built: tuple[Path, str]) -> None:
    books = books_of(built[0] / "out")
    assert (books["closed"]["not_chosen"], books["closed"]["chosen"]) == (3, 1)
    assert (books["mixed"]["not_chosen"], books["mixed"]["chosen"]) == (2, 1)
    assert books["films"]["chosen"] == 3


def test_an_archive_of_three_sources_was_streamed_once(built: tuple[Path, str]) -> None:
    pool = Pool(str(built[0] / "pool"))
    receipts = pool.receipts("stream")
    assert len(receipts) == 3  # the parts, the hub's zip, the exam
    (parts,) = (one for one in receipts if one.counts["members"] == 8)
    assert len(parts.parameters["wanted"]) == 3
    assert pool.table([parts], "index/members", MEMBERS).num_rows == 8


def test_what_was_fetched_is_recorded_with_its_commit(built: tuple[Path, str]) -> None:
    pool = Pool(str(built[0] / "pool"))
    (films,) = (one for one in pool.receipts("admit") if one.parameters["source"] == "films")
    rows = pool.table([films], "fetched", FETCHED).to_pylist()
    assert [row["address"] for row in rows] == [
        f"hf://datasets/{REPO}@{COMMIT}/{name}.json" for name in ("one", "two")
    ]


def test_a_second_build_asks_the_hub_for_its_commit_only(built: tuple[Path, str]) -> None:
    root, _ = built
    before = (root / "out/manifest.json").read_bytes()
    with serve({"films.zip": b"", "one.json": b"", "two.json": b""}) as hub:
        done = build(root, hub.url)
        assert done.returncode == 0, done.stderr
        assert not [path for path in hub.calls if "/resolve/" in path or "/cdn/" in path]
    assert (root / "out/manifest.json").read_bytes() == before
