"""The datasheet: complete, true to its inputs, and safe to open whatever the data says."""

from __future__ import annotations

import html.parser
import io
import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.order.schedule import scheduled
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.tokens.text import TextCodec, train_tokenizer
from pipeline.jobs import write_shards
from pipeline.report import build_data, clip_sections
from pipeline.report.html import picture, size
from pipeline.report.page import (
    PlantedRow,
    ScoreRow,
    build_sections,
    curves_section,
    planted_section,
    recall_of,
    scores_section,
    write_page,
    write_report,
)
from pipeline.stages import write_shard
from shards import index
from shards.errors import UserError
from shards.extents import tar_bytes
from shards.ids import sha256_hex, short_hash
from shards.outcome import Refused, read_books, write_books
from shards.pool import Pool
from shards.reader import PoolReader
from shards.receipts import Work
from shards.sample import Clip, Turn, clip_members, digest_turns, key_of, turns_to_json
from shards.store import Store
from shards.verify import RECEIPT, read_receipt

PUBLISHED = {
    "photos": ("p", "CC0-1.0"),
    "clips": ("c", "CC-BY-4.0"),
    "chat": ("t", "CC0-1.0"),
    "exam": ("exam", "unknown"),
}
"""Source -> dataset and licence, as in the recipe."""
HOSTILE = '<script>alert("x")</script> & <img src=http://example.org/x.png>'
RECIPE = """
name: little
seed: 3
length: 400
frames: {{fps: 2, cap: 16, area: 16384, min_area: 4096}}
text: {{tokenizer: {tokenizer}}}
pack_tokens: 4096
sources:
  - {{name: photos, dataset: p, licence: CC0-1.0, weight: 5, format: llava_json, annotations: a}}
  - {{name: clips, dataset: c, licence: CC-BY-4.0, weight: 3, format: llava_json, annotations: a}}
  - {{name: chat, dataset: t, licence: CC0-1.0, weight: 2, format: llava_json, annotations: a}}
held_out:
  - {{name: exam, format: llava_json, annotations: a}}
"""


def jpeg(seed: int, step: int, size: tuple[int, int]) -> bytes:
    """A picture that differs by seed and, by a moving disc, by step."""
    rng = np.random.default_rng(seed)
    low, high = rng.integers(30, 225, (2, 3))
    across = np.linspace(0, 1, size[0])[None, :, None]
    down = np.linspace(0, 1, size[1])[:, None, None]
    ramp = (low * (1 - across * down) + high * across * down).astype(np.uint8)
    image = Image.fromarray(ramp)
    x, y = 12 + step * 9 % size[0], size[1] // 3 + seed * 7 % (size[1] // 2)
    draw = ImageDraw.Draw(image)
    draw.ellipse((x - 14, y - 14, x + 14, y + 14), fill=tuple(int(v) for v in 255 - high))
    draw.rectangle((size[0] // 2, 8, size[0] // 2 + 20, 20 + seed % 30), fill=tuple(low.tolist()))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=90)
    return sink.getvalue()


@dataclass
class Fake:
    """What the stages leave in a pool, without media tools: samples, clips and refusals."""

    pool: Pool
    clips: list[tuple[dict[str, Any], list[bytes]]] = field(default_factory=list)
    refused_clips: list[Refused] = field(default_factory=list)

    def image(self, seed: int, size: tuple[int, int] = (320, 224)) -> str:
        return self._clip("image", seed, [0], (1, 1), (0, 1), size, (0, 1), 0, False)

    def video(self, seed: int, frames: int = 9, vfr: bool = False, rotation: int = 0) -> str:
        pts = [i * 500 + (i % 3) * 40 * vfr for i in range(frames)]
        size = (128, 192) if rotation else (256, 128)
        rate = [(30, 1), (25, 1), (30000, 1001)][seed % 3]
        return self._clip("video", seed, pts, (1, 1000), (frames, 2), size, rate, rotation, vfr)

    def _clip(
        self, kind: str, seed: int, pts: list[int], base: tuple[int, int],
        duration: tuple[int, int], size: tuple[int, int], rate: tuple[int, int], rotation: int,
        vfr: bool,
    ) -> str:  # fmt: skip
        name = short_hash([kind, seed, size])
        jpegs = [jpeg(seed, step, size) for step in range(len(pts))]
        row = {
            "clip_id": name, "media_digest": "0" * 64, "kind": kind, "pts": tuple(pts),
            "time_base": base, "duration": duration, "width": size[0], "height": size[1],
            "nbytes": tuple(map(len, jpegs)), "rotation": rotation, "is_vfr": vfr,
            "source_fps": rate, "colour": "bt709", "codec": "h264" if kind == "video" else "jpeg",
            "container": "mp4" if kind == "video" else "jpeg",
            "source_size": (size[0] * 2, size[1] * 2), "differences": (0,) * len(pts),
        }  # fmt: skip
        self.clips.append((row, jpegs))
        return name

    def broken(self, detail: str) -> str:
        name = short_hash(["broken", detail])
        self.refused_clips.append(refusal("", name, "decode", "MEDIA_TRUNCATED", detail))
        return name

    def admit(
        self, source: str, samples: list[tuple[str, str, list[str]]], refused: list[Refused]
    ) -> None:
        """`samples` are (question, answer, clip ids)."""
        rows = [sample_row(source, n, *each) for n, each in enumerate(samples)]
        for_records = sum(each.code.startswith("ROW_") for each in refused)
        counts = {
            "records": len(rows) + len(refused), "records_refused": for_records,
            "samples": len(rows) + len(refused) - for_records,
            "samples_refused": len(refused) - for_records,
        }  # fmt: skip
        dataset, licence = PUBLISHED[source]
        parameters = {"source": source, "dataset": dataset, "licence": licence,
                      "format": "llava_json", "revision": revision(source)}  # fmt: skip
        tables = {
            "index/samples": index.table_of(index.SAMPLES, rows),
            "index/media": index.MEDIA.empty_table(),
            "refused": index.table_of(index.REFUSED, map(asdict, refused)),
            "unread": index.UNREAD.empty_table(),
            "named": index.NAMED.empty_table(),
        }
        receipt = self.pool.commit(Work("admit", "1", parameters, [source]), tables, counts=counts)
        self.count_lengths(receipt.outputs["index/samples"][0])

    def count_lengths(self, table: str) -> None:
        rows = self.pool.read(f"index/samples/{table}").to_pylist()
        lengths = ({"source": row["source"], "key": row["key"], "tokens": [9] * row["num_turns"]}
                   for row in rows)  # fmt: skip
        profile = TextCodec(TOKENIZER).profile_id
        tables = {f"lengths/{profile}": index.table_of(index.LENGTHS, lengths)}
        self.pool.commit(Work("lengths", "1", {"text_profile": profile}, [table]), tables)

    def decode(self) -> None:
        groups = []
        for row, frames in self.clips:
            clip = Clip(**{name: row[name] for name in Clip.__slots__})
            groups.append(clip_members(clip, json.dumps(row).encode(), frames))
        data, extents = tar_bytes(groups)
        part = f"{sha256_hex(data)}.tar"
        rows = [row | {"part": part, **asdict(extent)}
                for (row, _), extent in zip(self.clips, extents, strict=True)]  # fmt: skip
        tables = {
            "index/clips": index.table_of(index.CLIPS, rows),
            "index/fingerprints": index.FINGERPRINTS.empty_table(),
            "refused": index.table_of(index.REFUSED, map(asdict, self.refused_clips)),
        }
        inputs = [row["clip_id"] for row in rows] + [each.key for each in self.refused_clips]
        self.pool.commit(
            Work("decode", "1", {}, inputs), tables, {"clips": data}, tools="ffmpeg 5.1.9"
        )

    def compare(self, pairs: list[tuple[str, str, str]], leaks: list[tuple[str, str]]) -> None:
        sources = {name: revision(name) for name in ("photos", "clips", "chat")}
        facts = [dict(zip(index.PAIRS.names, (*sorted(pair[:2]), pair[2], 17, "same"), strict=True))
                 for pair in pairs]  # fmt: skip
        rows = [(clip, "exam", other, "near", 4, "same") for clip, other in leaks]
        matches = [dict(zip(index.LEAKS.names, row, strict=True)) for row in rows]
        tables = {"clusters": index.table_of(index.PAIRS, facts),
                  "leaks": index.table_of(index.LEAKS, matches),
                  "references": index.REFERENCES.empty_table()}  # fmt: skip
        parameters = {"sources": sources, "held_out": {"exam": revision("exam")}}
        self.pool.commit(Work("compare", "1", parameters, []), tables)


def revision(source: str) -> str:
    return short_hash(["revision", source])


def refusal(source: str, key: str, stage: str, code: str, detail: str, record: str = "") -> Refused:
    return Refused(source=source, record=record, key=key, stage=stage, code=code, detail=detail,
                   origin="here")  # fmt: skip


def sample_row(
    source: str, number: int, question: str, answer: str, clip_ids: list[str]
) -> dict[str, Any]:
    media = tuple((i, 0) for i in range(len(clip_ids)))
    turns = (Turn(role="user", text=question, media=media), Turn(role="assistant", text=answer))
    return {
        "source": source, "revision": revision(source), "key": key_of(turns, clip_ids),
        "record": f"{source}-{number:04d}", "turns": json.dumps(turns_to_json(turns)),
        "turns_digest": digest_turns(turns), "clip_ids": clip_ids, "dataset": f"demo/{source}",
        "licence": "CC-BY-4.0" if source == "clips" else "CC0-1.0", "num_turns": 2,
        "num_chars": len(question + answer),
    }  # fmt: skip


TOKENIZER = train_tokenizer(["what is this? a photograph of a disc"], 300)


def fill(pool: Pool) -> None:
    """Three sources with one of every trouble that a report has to show."""
    fake = Fake(pool)
    photos = [fake.image(seed) for seed in range(12)]
    copy, mirrored = fake.image(0, (160, 96)), fake.image(1, (320, 192))
    leaked, cut = fake.image(77), fake.broken("ends at byte 12 of 400")
    ask = "What is drawn here?"
    samples = [(ask, f"A disc, number {n}.", [clip]) for n, clip in enumerate(photos)]
    samples += [(ask, "A disc, number 0.", [copy]), ("Is it mirrored?", "Yes.", [mirrored])]
    samples += [(ask, "A leaked disc.", [leaked]), (ask, HOSTILE, photos[2:5])]
    fake.admit("photos", samples, [
        refusal("photos", "", "admit", "ROW_MISSING_FIELD", HOSTILE, f"bad{n}") for n in range(23)
    ] + [refusal("photos", "", "fetch", "MEDIA_MISSING", "gone.jpg", "photos-9999")])  # fmt: skip
    videos = [fake.video(n, frames=4 + n * 3, vfr=n == 1, rotation=90 * (n == 2)) for n in range(7)]
    fake.admit("clips", [("How far does the disc go?", f"To the right, {n} times.", [clip])
                         for n, clip in enumerate([*videos, cut])], [])  # fmt: skip
    fake.admit("chat", [(f"What is {n} + {n}?", f"It is {2 * n}. " * n, []) for n in range(8)], [])
    fake.admit("exam", [], [])
    fake.decode()
    pairs = [(photos[0], copy, "near"), (photos[1], mirrored, "mirrored")]
    fake.compare([*pairs, (videos[2], videos[3], "contained")], [(leaked, "held-out-clip-id")])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(OUT, POOL) as `build` leaves them."""
    root = tmp_path_factory.mktemp("report")
    (root / "tokenizer.json").write_bytes(TOKENIZER)
    (root / "recipe.yaml").write_text(RECIPE.format(tokenizer=root / "tokenizer.json"))
    recipe = load_recipe(root / "recipe.yaml")
    pool = Pool(str(root / "pool"), recipe.profile)
    fill(pool)
    plan = build_manifest(
        recipe, pool, {name: revision(name) for name in ("photos", "clips", "chat", "exam")}
    )
    out = Store(root / "out")
    plan.write(out.url)
    manifest = load_manifest(f"{out.url}/manifest.json")
    drawn, reader = Draws(manifest).samples(0, manifest.length), PoolReader(pool)
    name = f"{manifest.manifest_id[:12]}-000000.tar"
    data, table = write_shard.shard_of(
        name, drawn, [reader.read(each.source, each.key) for each in drawn]
    )
    shards = Store(f"{out.url}/shards")
    shards.put(name, data)
    shards.put(f"index/{name.removesuffix('.tar')}.parquet", index.write_table(table))
    write_shards.publish(shards, manifest, {name: sha256_hex(data)})
    return out.url, pool.store.url


class Page(html.parser.HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "data", "srcset", "action")]
        self.loads += [v or "" for k, v in attrs if k == "href" and tag != "a"]
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if tag == "a" else []
        if tag == "img":
            self.images.append(values)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(built: tuple[str, str]) -> str:
    path = write_report(*built)
    assert path == f"{built[0]}/report.html"
    return Path(path).read_text()


def test_the_page_is_one_file_that_loads_and_runs_nothing(text: str) -> None:
    page = Page(text)
    assert not page.open, "every element is closed"
    assert not {"script", "iframe", "object", "embed", "link", "form"} & set(page.tags)
    assert page.images and all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert "url(" not in text and "@import" not in text
    assert HOSTILE not in text and "&lt;script&gt;" in text
    assert len(text) < 2_000_000


def test_the_page_can_be_read_without_seeing_it(text: str) -> None:
    page = Page(text)
    assert all(image["alt"] and image["width"] and image["height"] for image in page.images)
    assert len(set(page.ids)) == len(page.ids)
    assert all(link[1:] in page.ids for link in page.links)
    assert page.tags.count("h1") == 1
    assert text.count("<svg") == text.count('role="img" aria-label="')
    levels = [int(tag[1]) for tag in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1


@pytest.fixture(scope="module")
def bodies(built: tuple[str, str]) -> dict[str, str]:
    """The markup of each section by its title, in order."""
    sections = build_sections(*built)
    assert {section.group for section in sections} == {"little"}
    return {section.title: str(section.body) for section in sections}


def test_every_section_stands_in_its_place(bodies: dict[str, str]) -> None:
    assert list(bodies) == [
        "What this is",
        "Sources and their books",
        "Requested and realised ratio",
        "Example samples",
        "Duplicate clusters",
        "Leaks from evaluation data",
        "Distributions",
        "Licences",
    ]


def test_refusals_are_counted_explained_and_bounded(bodies: dict[str, str]) -> None:
    found = bodies["Sources and their books"]
    assert "do not balance" not in found
    for code in ("ROW_MISSING_FIELD", "MEDIA_MISSING", "MEDIA_TRUNCATED", "DUPLICATE_SAMPLE"):
        assert code in found
    assert "and 3 more in refused.parquet" in found
    assert "the record lacks a required field" in found


def test_books_that_do_not_balance_are_shown(built: tuple[str, str]) -> None:
    store = Store(built[0])
    clean = store.get("books.json")
    books, tables = read_books(store)
    astray = replace(books[0], records_refused=books[0].records_refused + 1)
    write_books(store, [astray, *books[1:]], tables)
    try:
        books_section = build_sections(*built)[1]
        assert "do not balance" in books_section.body
    finally:
        store.put("books.json", clean)


def test_examples_show_presentation_times_and_media_places(bodies: dict[str, str]) -> None:
    found = bodies["Example samples"]
    assert "0.50 s" in found
    assert "variable" in found or "constant" in found
    assert '<span class="mark">clip 1</span>' in found
    assert "text only" in found


def test_duplicates_and_leaks_say_what_became_of_them(bodies: dict[str, str]) -> None:
    found = bodies["Duplicate clusters"]
    assert "<dt>clusters</dt><dd>3</dd>" in found
    for word in ("A–B near", "A–B mirrored", "A–B contained", "DUPLICATE_SAMPLE", "kept"):
        assert word in found
    leaks = bodies["Leaks from evaluation data"]
    assert "LEAK_MEDIA" in leaks and "held-out-clip-id" in leaks and "exam" in leaks
    cells = [cell.split("<")[0] for cell in leaks.split('<td class="n">')[1:5]]
    assert cells == ["1", "1", "0", "0"] and "Matches by benchmark" in leaks


def test_the_same_build_gives_the_same_page(built: tuple[str, str], text: str) -> None:
    assert Path(write_report(*built)).read_text() == text


@pytest.mark.parametrize("name", build_data.FILES)
def test_a_missing_file_is_named(built: tuple[str, str], name: str) -> None:
    path = Path(built[0], name)
    moved = path.rename(path.with_suffix(".away"))
    try:
        with pytest.raises(UserError, match=name):
            write_report(*built)
    finally:
        moved.rename(path)


def test_a_build_without_shards_has_its_page(built: tuple[str, str], text: str) -> None:
    shards = Path(built[0], "shards")
    moved = shards.rename(shards.with_suffix(".away"))
    try:
        page = Path(write_report(*built)).read_text()
    finally:
        moved.rename(shards)
    apart = [
        pair
        for pair in zip(text.splitlines(), page.splitlines(), strict=True)
        if len(set(pair)) > 1
    ]
    assert len(apart) == 1 and "<dt>shards</dt><dd>0</dd>" in apart[0][1]


def test_shards_of_another_manifest_are_named(built: tuple[str, str]) -> None:
    store, name = Store(built[0]), "shards/receipt.json"
    clean = store.get(name)
    other = read_receipt(Store(f"{built[0]}/shards")) | {"manifest_id": "0" * 64}
    store.put(name, RECEIPT.seal(other))
    try:
        with pytest.raises(UserError, match="another manifest"):
            write_report(*built)
    finally:
        store.put(name, clean)


def test_a_pool_that_lost_its_clips_is_named(built: tuple[str, str], tmp_path: Path) -> None:
    pool = Pool(str(shutil.copytree(built[1], tmp_path / "pool")))
    for receipt in pool.receipts("decode"):
        pool.store.remove(f"receipts/{receipt.work_id}.json")
    with pytest.raises(UserError, match="lacks sample"):
        write_report(built[0], pool.store.url)


def test_a_folder_or_pool_that_is_none_is_named(built: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json"):
        write_report(str(tmp_path), built[1])
    with pytest.raises(UserError, match="not a pool"):
        write_report(built[0], str(tmp_path))
    Pool(str(tmp_path / "other"), Pool(built[1]).profile)
    with pytest.raises(UserError, match="is --pool the right one"):
        write_report(built[0], str(tmp_path / "other"))


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=1, max_size=3),
    st.integers(1, 400),
)
def test_shares_of_a_schedule_keep_the_promise(stages: list[list[int]], length: int) -> None:
    at = np.concatenate([drawn(quotas, length) for quotas in stages])
    names, length = ["a", "b", "c"], len(at)
    starts = range(0, length, length // len(stages))
    found = build_data.shares(names, list(zip(starts, stages, strict=True)), at)
    assert sum(share.count for share in found) == length
    assert all(share.prefix < 1 and share.window < 2 for share in found)
    assert sum(share.requested for share in found) == 1
    columns = build_data.windowed(at, len(names))
    assert all(sum(column) == pytest.approx(1) for column in columns)


def drawn(quotas: list[int], length: int) -> NDArray[np.int64]:
    """The sources at the first positions of a stage."""
    return scheduled(quotas, length).astype(np.int64)


def test_a_wrong_order_shows_in_the_shares() -> None:
    found = build_data.shares(["a", "b"], [(0, [1, 1])], np.repeat([0, 1], 200))
    assert [share.prefix for share in found] == [Fraction(100), Fraction(100)]
    assert [share.window for share in found] == [Fraction(50), Fraction(50)]


def test_clusters_join_pairs_and_take_turns_by_kind() -> None:
    def pair(a: str, b: str, relation: str) -> dict[str, Any]:
        return {"clip_a": a, "clip_b": b, "relation": relation, "distance": 1, "judged": "same"}

    facts = [pair("a", "b", "near"), pair("b", "c", "near"), pair("d", "e", "near")]
    facts += [pair("f", "g", "mirrored")]
    clusters = clip_sections.clusters_of(facts)
    assert [cluster.clips for cluster in clusters] == [("a", "b", "c"), ("d", "e"), ("f", "g")]
    shown = clip_sections.of_every_kind(clusters, 2, first={"e"})
    assert [cluster.clips for cluster in shown] == [("f", "g"), ("d", "e")]


def test_a_crowd_is_more_than_20_clips_each_two_of_which_are_a_pair() -> None:
    def pair(a: int, b: int) -> dict[str, Any]:
        return {"clip_a": f"{a:02d}", "clip_b": f"{b:02d}", "relation": "near", "judged": "same"}

    chain = [pair(n, n + 1) for n in range(50, 90)]
    crowd = [pair(a, b) for a in range(21) for b in range(a + 1, 21)]
    assert clip_sections.crowds_of([*chain, *crowd]) == [tuple(f"{n:02d}" for n in range(21))]
    assert clip_sections.crowds_of([*chain, *crowd[1:]]) == []


def test_curves_with_nothing_to_draw_still_say_so() -> None:
    section = curves_section("Loss", {"broken": [(0, nan)], "empty": []}, "")
    assert "1 of them not finite" in section.body and "<svg" not in section.body


def test_planted_trouble_adds_up() -> None:
    rows = [
        PlantedRow(what="copy", source="s", record="1", expected="DUPLICATE_SAMPLE",
                          code="DUPLICATE_SAMPLE"),
        PlantedRow(what="cut", source="s", record="2", expected="MEDIA_TRUNCATED", code=""),
        PlantedRow(what="mirror, other question", source="s", record="3", expected="",
                          code="DUPLICATE_SAMPLE"),
        PlantedRow(what="copy, other text", source="s", record="4", expected="", code=""),
    ]  # fmt: skip
    total = recall_of(rows)
    assert (total.expected, total.true_positives, total.false_positives) == (2, 1, 1)
    assert (total.precision, total.recall) == (0.5, 0.5)
    body = planted_section("Planted", rows, "").body
    assert body.count(">wrong<") == 2 and body.count(">right<") == 2


def test_scores_stand_beside_their_floors(tmp_path: Path) -> None:
    rows = [
        ScoreRow(name="first", count=50, accuracy=0.8, low=0.67, high=0.89,
                        floors={"majority": 0.1, "no vision": 0.12}),
        ScoreRow(name="all", count=250, accuracy=0.7, low=0.64, high=0.75,
                        floors={"majority": 0.2}),
    ]  # fmt: skip
    section = scores_section("Scores", rows, "held-out questions")
    path = str(tmp_path / "page.html")
    write_page(path, "A page", [section], [("video accuracy", "0.70")])
    found = Path(path).read_text()
    assert not Page(found).open
    for value in ("0.800", "0.670 – 0.890", "0.120", "video accuracy"):
        assert value in found


def test_thumbnails_are_small_and_sizes_readable() -> None:
    small = picture(jpeg(1, 0, (1280, 960)), "alt")
    assert (small.width, small.height) == (160, 120) and len(small.data) < 20_000
    wide = picture(jpeg(1, 0, (2048, 64)), "alt")
    assert (wide.width, wide.height) == (320, 10)
    assert [size(n) for n in (0, 1023, 1024, 5 << 30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
