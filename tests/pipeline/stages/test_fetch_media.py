"""Media named by their addresses, and files that lie by themselves: fetched, refused one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import urllib3

from mixtures.recipe.types import Archive, HeldOut
from pipeline.fetch import local_files, url_guard
from pipeline.jobs import collect
from pipeline.sources import pin
from pipeline.stages import fetch_media, list_media
from pipeline.stages.admit_records import SourceUnit, admit
from pipeline.stages.decode_media import MediaUnit, decode
from pipeline.stages.media_rows import MediaRow
from pipeline.stages.open_media import open_address
from shards.errors import UserError
from shards.ids import sha256_hex
from shards.index import CLIPS, MEDIA, MEMBERS, REFUSED, SAMPLES
from shards.pool import Pool
from shards.profile import Profile
from tests.support import flaky_server
from tests.support.flaky_server import Handler, Server
from tests.support.small_world import picture

HOST = "https://media.example.org"
URLS = {
    f"{HOST}/good/": "",
    f"{HOST}/page/": "FETCH_NOT_MEDIA",
    f"{HOST}/text/": "FETCH_NOT_MEDIA",
    f"{HOST}/status/404-9-": "FETCH_REFUSED",
    f"{HOST}/to/http://169.254.169.254/": "FETCH_ADDRESS_REFUSED",
    "http://media.example.org/good/": "FETCH_ADDRESS_REFUSED",
    "https://127.0.0.1/good/": "FETCH_ADDRESS_REFUSED",
}


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server of flaky_server in the place of media.example.org, with a real picture."""
    picture(tmp_path / "x.jpg", 1)
    data = (tmp_path / "x.jpg").read_bytes()
    monkeypatch.setattr(Handler, "way_good", lambda self, *_: self.rest(data))
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(url_guard, "resolve", lambda _: ["93.184.216.34"])
    with flaky_server.serve() as server:
        pool_to = urllib3.connection_from_url
        monkeypatch.setattr(url_guard, "pool_to", lambda *_: pool_to(server.url, retries=False))
        yield server


def test_addresses_are_fetched_and_refused_one_by_one(web: Server, tmp_path: Path) -> None:
    pool = Pool(str(tmp_path / "pool"), Profile())
    rows = [{"image_url": url, "caption": f"Number {i}."} for i, url in enumerate(URLS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    annotations = (str(tmp_path / "a.parquet"),)
    names = list_media.names(
        list_media.NamesUnit(pool=pool.store.url, format="image_urls", annotations=annotations)
    )
    linked = fetch_media.link(fetch_media.LinkUnit(pool=pool.store.url, urls=tuple(sorted(URLS))))
    found = pool.table([linked], "index/members", MEMBERS).to_pylist()
    assert {row["name"]: row["code"] for row in found} == URLS
    unit = SourceUnit(
        pool=pool.store.url,
        name="pixmo",
        dataset="pixmo-cap",
        format="image_urls",
        annotations=annotations,
        media="",
        licence="ODC-BY-1.0",
        wanted=names.outputs["index/wanted"][0],
        members=(linked.outputs["index/members"][0],),
    )
    admitted = admit(unit)
    refused = pool.table([admitted], "refused", REFUSED).to_pylist()
    assert [row["code"] for row in refused] == [code for code in URLS.values() if code]
    assert {row["stage"] for row in refused} == {"fetch"}
    assert pool.table([admitted], "index/samples", SAMPLES).num_rows == 1
    (medium,) = pool.table([admitted], "index/media", MEDIA).to_pylist()
    assert medium["address"] == f"file:{HOST}/good/"
    asked = web.calls.total()
    decode(MediaUnit(pool=pool.store.url, stage="decode", rows=(MediaRow.of(medium),)))
    assert web.calls.total() == asked
    assert pool.table(pool.receipts("decode"), "index/clips", CLIPS).num_rows == 1


def test_what_was_linked_before_is_not_asked_again(web: Server, tmp_path: Path) -> None:
    pool = Pool(str(tmp_path / "pool"), Profile())
    rows = [{"image_url": url, "caption": "x"} for url in (f"{HOST}/good/", f"{HOST}/page/")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    names = list_media.names(
        list_media.NamesUnit(
            pool=pool.store.url, format="image_urls", annotations=(str(tmp_path / "a.parquet"),)
        )
    )
    (unit,) = collect._link_units([names], pool)
    assert unit.urls == (f"{HOST}/good/", f"{HOST}/page/")
    fetch_media.link(unit)
    assert not list(collect._link_units([names], pool))


def held_out(**values: Any) -> HeldOut:
    return HeldOut(**({"name": "s", "dataset": "s", "format": "llava_json"} | values))


def test_loose_files_and_parts_are_told_from_archives(tmp_path: Path) -> None:
    for name in ("v/a/1.mp4", "v/2.mp4", "x.tar.gz_part_aa", "x.tar.gz_part_ab", "y.zip", "a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    patterns = ("v/**/*.mp4", "x.tar.gz_part_*", "y.zip")
    found = pin.pin(
        held_out(
            annotations=(f"{tmp_path}/a.json",),
            archives=tuple(Archive(at=f"{tmp_path}/{one}", under="u") for one in patterns),
        ),
        "r.yaml",
    )
    assert found.annotations == (f"{tmp_path}/a.json",)
    assert found.archives == (
        ((f"{tmp_path}/x.tar.gz_part_aa", f"{tmp_path}/x.tar.gz_part_ab"), "u"),
        ((f"{tmp_path}/y.zip",), "u"),
    )
    assert found.loose == (
        ("u/2.mp4", f"{tmp_path}/v/2.mp4"),
        ("u/a/1.mp4", f"{tmp_path}/v/a/1.mp4"),
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"annotations": ("nothing.json",)}, r"nothing\.json.*annotations of s"),
        ({"annotations": ("*.nothing",)}, "no file fits the pattern"),
        ({"annotations": ("ftp://x.org/a.json",)}, "starts with hf://"),
        ({"annotations": ("https://127.0.0.1/a.json",)}, "no public host name"),
        ({"annotations": ("pyproject.toml",), "archives": (Archive(at="x.z01"),)}, r"x\.z01"),
        ({"annotations": ("pyproject.toml",), "format": "lava"}, "reads activitynet_qa"),
    ],
)
def test_what_leads_nowhere_is_said_before_any_work(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pin.pin(held_out(**values), "r.yaml")
    assert "\n" not in str(caught.value)


def test_a_multi_volume_zip_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "x.z01").write_bytes(b"PK")
    (tmp_path / "a.json").write_text("[]")
    one = held_out(annotations=(f"{tmp_path}/a.json",), archives=(Archive(at=f"{tmp_path}/x.z01"),))
    with pytest.raises(UserError, match="zip -s 0"):
        pin.pin(one, "r.yaml")


def test_a_remote_file_is_opened_by_its_address_on_any_machine(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local_files.fetched(f"{HOST}/good/")
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "another machine"))
    with open_address(f"file:{HOST}/good/") as path:
        assert isinstance(path, Path) and sha256_hex(path.read_bytes()) == first.digest
    with pytest.raises(UserError, match=r"FETCH_REFUSED: the server answers 404"):
        local_files.local(f"{HOST}/status/404-9-")
