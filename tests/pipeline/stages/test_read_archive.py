"""Archives streamed into a pool: read once, decoded once, joined to records by name."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.archives.members import ranges
from pipeline.archives.split_files import Concatenated
from pipeline.fetch.local_files import resolve
from pipeline.jobs import collect
from pipeline.sources import media_lookup
from pipeline.sources.media_lookup import folder_digest
from pipeline.stages import decode_media, list_media, pending, read_archive
from pipeline.stages.admit_records import SourceUnit, admit
from pipeline.stages.decode_media import MediaUnit, decode
from pipeline.stages.media_rows import MediaRow
from shards.ids import sha256_hex
from shards.index import CLIPS, MEDIA, MEMBERS, REFUSED, SAMPLES
from shards.pool import Pool, Receipt
from shards.profile import Profile
from shards.receipts import SNAPSHOTS, Work
from shards.store import Store
from tests.support.archives import asks, tarred, zipped
from tests.support.small_world import film, picture, row

PROFILE = Profile(fps=2, frame_cap=8, video_area=128 * 128, image_area=128 * 128)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Real pictures, a video and a GIF by the names that records use."""
    home = tmp_path_factory.mktemp("media")
    found = {}
    for number in range(6):
        picture(home / "x.jpg", number)
        found[f"pictures/{number}.jpg"] = (home / "x.jpg").read_bytes()
    film(home / "x.mp4", 3)
    found["films/a.mp4"] = (home / "x.mp4").read_bytes()
    shots = [Image.open(io.BytesIO(found[f"pictures/{i}.jpg"])).convert("P") for i in range(3)]
    shots[0].save(home / "x.gif", save_all=True, append_images=shots[1:], duration=500, loop=0)
    found["films/b.gif"] = (home / "x.gif").read_bytes()
    return found


class World:
    """A pool and one source in it."""

    def __init__(self, home: Path, annotations: Path, form: str = "llava_json") -> None:
        self.pool = Pool(str(home / "pool"), PROFILE)
        self.annotations, self.form = (str(annotations),), form

    def names(self) -> str:
        unit = list_media.NamesUnit(
            pool=self.pool.store.url, format=self.form, annotations=self.annotations
        )
        return str(list_media.names(unit).outputs["index/wanted"][0])

    def unit(self, *parts: Path, under: str = "", **more: Any) -> read_archive.ArchiveUnit:
        return read_archive.ArchiveUnit(
            pool=self.pool.store.url,
            stage="decode",
            parts=tuple(map(str, parts)),
            under=under,
            wanted=(self.names(),),
            **more,
        )

    def members(self, receipt: Receipt) -> dict[str, str]:
        table = self.pool.table([receipt], "index/members", MEMBERS).to_pylist()
        return {row["name"]: row["code"] or row["media_digest"] for row in table}

    def admit(self, *streamed: Receipt, media: str = "") -> Receipt:
        return admit(
            SourceUnit(
                pool=self.pool.store.url,
                name="source",
                dataset="source",
                format=self.form,
                annotations=self.annotations,
                media=media,
                licence="CC0-1.0",
                wanted=self.names(),
                members=tuple(name for one in streamed for name in one.outputs["index/members"]),
            )
        )

    def codes(self, receipt: Receipt) -> dict[str, str]:
        rows = self.pool.table([receipt], "refused", REFUSED).to_pylist()
        return {row["record"]: row["code"] for row in rows}

    def clips(self) -> dict[str, dict[str, Any]]:
        rows = self.pool.table(self.pool.receipts("decode"), "index/clips", CLIPS).to_pylist()
        assert len({row["clip_id"] for row in rows}) == len(rows)
        return {row["media_digest"]: row for row in rows}

    def samples(self, receipt: Receipt) -> int:
        return int(self.pool.table([receipt], "index/samples", SAMPLES).num_rows)


def streamed(unit: read_archive.ArchiveUnit) -> Receipt:
    Pool(unit.pool).ledger.compact()  # as a build does before its archives
    receipt = read_archive.stream(unit).receipt
    assert receipt
    return receipt


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_an_archive_is_streamed_into_clips(
    tmp_path: Path, media: dict[str, bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(read_archive, "memory", lambda: str(tmp_path / "memory"))
    make = zipped if kind == "zip" else tarred
    archive = make(tmp_path / f"all.{kind}", media | {"unwanted.bin": b"x" * 5000})
    world = World(tmp_path, asks(tmp_path / "a.json", [*media, "pictures/gone.jpg"]))
    receipt = streamed(world.unit(archive))
    assert world.members(receipt) == {name: sha256_hex(data) for name, data in media.items()}
    clips = world.clips()
    assert set(clips) == {sha256_hex(data) for data in media.values()}
    assert clips[sha256_hex(media["films/b.gif"])]["codec"] == "gif"
    admitted = world.admit(receipt)
    assert world.samples(admitted) == len(media)
    assert world.codes(admitted) == {"pictures/gone.jpg": "MEDIA_MISSING"}
    if kind != "zip":  # a zip is read from its end, and then hashed
        assert receipt.counts["bytes_read"] == archive.stat().st_size
    assert not list((tmp_path / "memory").iterdir())


def test_streaming_again_does_nothing_and_another_source_decodes_nothing_twice(
    tmp_path: Path, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tarred(tmp_path / "all.tar.gz", media)
    world = World(tmp_path, asks(tmp_path / "a.json", list(media)[:4]))
    first = streamed(world.unit(archive))
    calls: list[int] = []
    monkeypatch.setattr(
        decode_media,
        "decode",
        lambda unit: calls.append(len(unit.rows)) or decode(unit),
    )
    assert streamed(world.unit(archive)) == first and not calls
    world.annotations = (str(asks(tmp_path / "b.json", list(media))),)
    streamed(world.unit(archive))
    assert sum(calls) == len(media) - 4


def test_an_archive_does_not_list_the_receipts_of_its_pool(
    tmp_path: Path, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tarred(tmp_path / "all.tar.gz", media)
    world = World(tmp_path, asks(tmp_path / "a.json", list(media)[:2]))
    streamed(world.unit(archive))
    world.pool.ledger.compact()
    world.annotations = (str(asks(tmp_path / "b.json", list(media))),)
    unit = world.unit(archive)
    listed: list[str] = []
    plain = Store.list
    monkeypatch.setattr(
        Store, "list", lambda store, folder: listed.append(folder) or plain(store, folder)
    )
    passed = read_archive.stream(unit)
    assert set(listed) == {SNAPSHOTS}
    assert passed.receipt and passed.receipt.counts["media"] == len(media) - 2


def test_what_was_decoded_before_a_kill_is_not_decoded_again(
    tmp_path: Path, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "IMAGES_PER_PART", 2)
    archive = tarred(tmp_path / "all.tar.gz", media)
    world = World(tmp_path, asks(tmp_path / "a.json", list(media)))
    done: list[MediaUnit] = []

    def dies(unit: MediaUnit) -> Receipt:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(unit)
        return decode(unit)

    with monkeypatch.context() as patch:
        patch.setattr(decode_media, "decode", dies)
        with pytest.raises(KeyboardInterrupt):
            streamed(world.unit(archive))
    assert len(world.clips()) == 4
    streamed(world.unit(archive))
    assert len(world.clips()) == len(media)


def test_members_lie_under_a_folder_or_behind_one(tmp_path: Path, media: dict[str, bytes]) -> None:
    names = [name for name in media if name.startswith("pictures")]
    world = World(tmp_path, asks(tmp_path / "a.json", [f"coco/{name}" for name in names]))
    behind = {f"deep/coco/{name}": media[name] for name in names[:3]}
    receipt = streamed(world.unit(tarred(tmp_path / "behind.tar", behind)))
    inside = {name: media[name] for name in names[3:]}
    other = streamed(world.unit(tarred(tmp_path / "under.tar", inside), under="coco"))
    assert world.samples(world.admit(receipt, other)) == len(names)


def test_two_media_of_one_name_answer_nothing(tmp_path: Path, media: dict[str, bytes]) -> None:
    world = World(tmp_path, asks(tmp_path / "a.json", ["pictures/0.jpg", "pictures/1.jpg"]))
    one, two = media["pictures/0.jpg"], media["pictures/1.jpg"]
    receipts = [
        streamed(world.unit(tarred(tmp_path / "a.tar", {"x/pictures/0.jpg": one}))),
        streamed(world.unit(tarred(tmp_path / "b.tar", {"y/pictures/0.jpg": two}))),
        streamed(world.unit(tarred(tmp_path / "c.tar", {"pictures/1.jpg": two}))),
        streamed(world.unit(tarred(tmp_path / "d.tar", {"pictures/1.jpg": two}))),
    ]
    assert world.codes(world.admit(*receipts)) == {"pictures/0.jpg": "MEDIA_AMBIGUOUS"}


def test_records_of_a_damaged_archive_say_so(tmp_path: Path, media: dict[str, bytes]) -> None:
    archive = tarred(tmp_path / "all.tar", {"pictures/0.jpg": media["pictures/0.jpg"]} | media)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    world = World(tmp_path, asks(tmp_path / "a.json", ["pictures/0.jpg", "films/b.gif"]))
    admitted = world.admit(streamed(world.unit(archive)))
    assert world.codes(admitted) == {"films/b.gif": "ARCHIVE_DAMAGED"}
    assert world.samples(admitted) == 1


def test_a_refused_member_refuses_its_record(tmp_path: Path, media: dict[str, bytes]) -> None:
    data = media["pictures/0.jpg"]
    archive = tmp_path / "all.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("pictures/1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        info = tarfile.TarInfo("pictures/0.jpg")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    world = World(tmp_path, asks(tmp_path / "a.json", ["pictures/0.jpg", "pictures/1.jpg"]))
    admitted = world.admit(streamed(world.unit(archive)))
    assert world.codes(admitted) == {"pictures/1.jpg": "ARCHIVE_MEMBER_REFUSED"}


def test_ranges_of_an_archive_make_the_same_pool(tmp_path: Path, media: dict[str, bytes]) -> None:
    archive = tarred(tmp_path / "all.tar", media)
    world = World(tmp_path, asks(tmp_path / "a.json", list(media)))
    with Concatenated([archive]) as file:
        spans = ranges(file, "tar", 20_000)
    assert len(spans) > 1
    receipts = [streamed(world.unit(archive, span=span)) for span in spans]
    assert world.samples(world.admit(*receipts)) == len(media)


def test_large_members_go_by_disk(
    tmp_path: Path, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_archive, "IN_MEMORY", 1000)
    archive = tarred(tmp_path / "all.tar.gz", media)
    world = World(tmp_path, asks(tmp_path / "a.json", list(media)))
    streamed(world.unit(archive))
    assert len(world.clips()) == len(media)


def hound(path: Path, names: list[str]) -> Path:
    rows = [row(name, "video", name, f"What is {name}?", "this") for name in names]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_folders_of_pictures_are_videos_in_archives_and_on_disk(
    tmp_path: Path, media: dict[str, bytes]
) -> None:
    shots = {f"c01_{i + 1:04d}.jpeg": media[f"pictures/{i}.jpg"] for i in range(6)}
    files = {f"train/v_one/{name}": data for name, data in reversed(shots.items())}
    world = World(tmp_path, hound(tmp_path / "a.jsonl", ["v_one", "v_two"]), "llava_hound")
    receipt = streamed(world.unit(tarred(tmp_path / "chunk_0.tar.gz", files)))
    (clip,) = world.clips().values()
    digest = folder_digest((name, sha256_hex(data)) for name, data in shots.items())
    assert (clip["media_digest"], clip["kind"], clip["codec"]) == (digest, "video", "jpeg")
    assert (clip["pts"], clip["time_base"], clip["duration"]) == ([*range(6)], [1, 2], [3, 1])
    assert (clip["width"], clip["height"]) == (128, 96)
    admitted = world.admit(receipt)
    assert world.codes(admitted) == {"v_two": "MEDIA_MISSING"}
    folder = tmp_path / "media/v_one"
    folder.mkdir(parents=True)
    for name, data in shots.items():
        (folder / name).write_bytes(data)
    again = World(tmp_path / "other", tmp_path / "a.jsonl", "llava_hound")
    on_disk = again.admit(media=str(tmp_path / "media"))
    assert on_disk.parameters["revision"] == admitted.parameters["revision"]  # wherever they lie
    (found,) = again.pool.table([on_disk], "index/media", MEDIA).to_pylist()
    assert found["media_digest"] == digest and found["clip_id"] == clip["clip_id"]
    decode(MediaUnit(pool=again.pool.store.url, stage="decode", rows=(MediaRow.of(found),)))
    (same,) = again.clips().values()
    assert {name: same[name] for name in CLIPS.names} == {n: clip[n] for n in CLIPS.names}


def test_a_folder_that_is_scattered_is_refused(tmp_path: Path, media: dict[str, bytes]) -> None:
    data = media["pictures/0.jpg"]
    files = {"v_one/1.jpeg": data, "v_two/1.jpeg": data, "v_one/2.jpeg": data}
    world = World(tmp_path, hound(tmp_path / "a.jsonl", ["v_one", "v_two"]), "llava_hound")
    admitted = world.admit(streamed(world.unit(tarred(tmp_path / "a.tar", files))))
    assert world.codes(admitted) == {"v_one": "ARCHIVE_MEMBER_REFUSED"}


def test_two_folders_of_one_name_side_by_side_answer_nothing_unless_they_are_equal(
    tmp_path: Path, media: dict[str, bytes]
) -> None:
    files = {f"{at}/v_one/{n}.jpeg": media[f"pictures/{n}.jpg"] for at in "ab" for n in range(2)}
    world = World(tmp_path, hound(tmp_path / "a.jsonl", ["v_one"]), "llava_hound")
    admitted = world.admit(streamed(world.unit(tarred(tmp_path / "a.tar", files))))
    assert world.codes(admitted) == {}
    files["b/v_one/1.jpeg"] = media["pictures/2.jpg"]
    admitted = world.admit(streamed(world.unit(tarred(tmp_path / "b.tar", files))))
    assert world.codes(admitted) == {"v_one": "MEDIA_AMBIGUOUS"}


@pytest.mark.parametrize("behind", [0, 1])
def test_a_folder_in_which_an_archive_breaks_is_no_shorter_video(
    tmp_path: Path, media: dict[str, bytes], behind: int
) -> None:
    files = {
        f"{v}/{n}.jpeg": media[f"pictures/{n}.jpg"] for v in ("v_one", "v_two") for n in (0, 1)
    }
    archive = tarred(tmp_path / "a.tar", files)
    data = archive.read_bytes()
    archive.write_bytes(data + b"behind" if behind else data[: len(data.rstrip(b"\0")) - 700])
    world = World(tmp_path, hound(tmp_path / "a.jsonl", ["v_one", "v_two"]), "llava_hound")
    admitted = world.admit(streamed(world.unit(archive)))
    assert world.codes(admitted) == ({} if behind else {"v_two": "ARCHIVE_DAMAGED"})


def test_no_range_cuts_a_folder_of_pictures(
    tmp_path: Path, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "RANGE_BYTES", 20_000)
    found = {}
    for form, make, end in (("llava_hound", hound, "jsonl"), ("llava_json", asks, "json")):
        archive = str(tarred(tmp_path / f"{form}.tar", media))
        world = World(tmp_path / form, make(tmp_path / f"{form}.{end}", ["pictures"]), form)
        names = list_media.names(
            list_media.NamesUnit(
                pool=world.pool.store.url, format=form, annotations=world.annotations
            )
        )
        source = SimpleNamespace(source=SimpleNamespace(name="a"), archives=(((archive,), ""),))
        units = collect.archive_units([source], {"a": names}, "decode", world.pool)
        found[form] = [unit.span for unit in units]
    assert found["llava_hound"] == [None] and len(found["llava_json"]) > 1


def test_a_damaged_member_takes_no_room_while_the_archive_passes(
    tmp_path: Path, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[str] = []
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(read_archive, "memory", lambda: str(tmp_path / "memory"))

    def refuse_and_look(self: read_archive._Found, *more: Any) -> None:
        (folder,) = (tmp_path / "memory").iterdir()
        left.extend(path.name for path in folder.iterdir())
        refuse(self, *more)

    refuse = read_archive._Found.refuse
    monkeypatch.setattr(read_archive._Found, "refuse", refuse_and_look)
    archive = zipped(tmp_path / "a.zip", {"pictures/0.jpg": media["pictures/0.jpg"]})
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    world = World(tmp_path, asks(tmp_path / "a.json", ["pictures/0.jpg"]))
    admitted = world.admit(streamed(world.unit(archive)))
    assert world.codes(admitted) == {"pictures/0.jpg": "ARCHIVE_DAMAGED"} and not left


def test_byte_ranges_of_a_patch_are_decoded(
    tmp_path: Path, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    pieces = media_lookup._pieces
    monkeypatch.setattr(
        media_lookup, "_pieces", lambda *of: hashed.append(of[-1].kind) or pieces(*of)
    )
    shots = [media[f"pictures/{i}.jpg"] for i in range(4)]
    (tmp_path / "media").mkdir()
    (tmp_path / "media/patch_000000").write_bytes(b"other" + b"".join(shots))
    sizes = [len(data) for data in shots]
    talk = row("", "video", "", "What?", "this")["conversations"]
    spot = {"patch": "patch_000000", "start_num": 5, "size": sizes}
    single = {"patch": "patch_000000", "start_num": 5, "size": sizes[0]}
    past = {"patch": "patch_000000", "start_num": 5, "size": [10**9]}
    asked = row("", "image", "", "What?", "that")["conversations"]
    rows = [
        {"id": "v", "video": spot, "conversations": talk},
        {
            "id": "w",
            "video": spot,
            "conversations": row("", "video", "", "Who?", "she")["conversations"],
        },
        {"id": "i", "image": single, "conversations": asked},
        {"id": "p", "video": past, "conversations": talk},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    world = World(tmp_path, tmp_path / "a.json", "oryx_patches")
    admitted = world.admit(media=str(tmp_path / "media"))
    assert world.codes(admitted) == {"p": "MEDIA_TRUNCATED"} and world.samples(admitted) == 3
    assert hashed == ["video", "image", "video"]  # each piece once
    wanted = world.pool.table([admitted], "index/media", MEDIA).to_pylist()
    decode(
        MediaUnit(pool=world.pool.store.url, stage="decode", rows=tuple(map(MediaRow.of, wanted)))
    )
    clips = world.clips()
    assert len(clips[sha256_hex(b"".join(shots))]["pts"]) == 4
    assert clips[sha256_hex(shots[0])]["kind"] == "image"


def test_a_medium_that_kills_is_refused_and_its_neighbours_are_kept(
    tmp_path: Path, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["pictures/0.jpg", "pictures/1.jpg"]
    world = World(tmp_path, asks(tmp_path / "a.json", names))
    killer = sha256_hex(media["pictures/1.jpg"])
    monkeypatch.setenv("KILLER", killer)
    monkeypatch.setenv("DEATHS", str(tmp_path / "deaths"))
    monkeypatch.setattr(decode_media, "decode", decode_or_die)
    archive = tarred(tmp_path / "all.tar.gz", {name: media[name] for name in names})
    streamed(world.unit(archive, alone=True))
    assert set(world.clips()) == {sha256_hex(media["pictures/0.jpg"])}
    refused = world.pool.table(world.pool.receipts("decode"), "refused", REFUSED).to_pylist()
    assert [row["code"] for row in refused] == ["MEDIA_KILLED_WORKER"]
    assert len((tmp_path / "deaths").read_bytes()) == 3
    assert refused[0]["origin"] == f"member:{resolve(str(archive), '')}#pictures/1.jpg"


def decode_or_die(unit: MediaUnit) -> Receipt:
    if any(row.media_digest == os.environ["KILLER"] for row in unit.rows):
        with Path(os.environ["DEATHS"]).open("ab") as deaths:
            deaths.write(b"x")
        os.abort()
    return decode(unit)


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda p: "/".join(p) + ".jpg")


@settings(deadline=None, max_examples=40)
@given(
    archives=st.lists(
        st.dictionaries(PATHS, st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=2
    ),
    asked=st.lists(st.lists(PATHS, min_size=1, max_size=5, unique=True), min_size=2, max_size=2),
    frames=st.booleans(),
    upper=st.booleans(),
)
def test_what_becomes_of_a_source_never_depends_on_another(
    archives: list[dict[str, int]],
    asked: list[list[str]],
    frames: bool,
    upper: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Suffixes of each other's names, near names, folders of pictures beside files of them."""
    home = tmp_path_factory.mktemp("askers")
    files = [
        {name.upper() if upper and number else name: b"%d" % number for name, number in one.items()}
        for one in archives
    ]
    tars = [tarred(home / f"{number}.tar", one) for number, one in enumerate(files)]
    worlds = [World(home, asks(home / "a.json", asked[0]))]
    if frames:
        names = sorted({name.rpartition("/")[0] or "a" for name in asked[1]})
        worlds.append(World(home, hound(home / "b.jsonl", names), "llava_hound"))
    else:
        worlds.append(World(home, asks(home / "b.json", asked[1])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_media, "decode", lambda unit: commit_nothing(worlds[0].pool, unit))
        apart = [told(world, tars, (world,)) for world in worlds]
        together = [told(world, tars, worlds) for world in worlds]
    assert together == apart


def told(
    world: World, tars: list[Path], askers: Sequence[World]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """(refusals by record, samples with their clips) of a source, others asking beside it."""
    wanted = tuple(sorted({one.names() for one in askers}))
    streams = [streamed(replace(world.unit(path), wanted=wanted)) for path in tars]
    admitted = world.admit(*streams)
    rows = world.pool.table([admitted], "index/samples", SAMPLES).to_pylist()
    refused = world.pool.table([admitted], "refused", REFUSED).to_pylist()
    said = {row["record"]: f"{row['code']}: {row['detail']}" for row in refused}
    return said, sorted((row["record"], *row["clip_ids"]) for row in rows)


def commit_nothing(pool: Pool, unit: MediaUnit) -> Receipt:
    """A decoder that finds every medium good, and keeps nothing of it."""
    clips = [row.clip_id for row in unit.rows]
    work = Work(unit.stage, "none", {}, clips)
    return pool.commit(work, {}, counts={"media": len(clips), "refused": 0})


def test_what_one_source_shows_as_an_image_another_shows_as_a_video(
    tmp_path: Path, media: dict[str, bytes]
) -> None:
    archive = tarred(tmp_path / "a.tar", {"films/b.gif": media["films/b.gif"]})
    world = World(tmp_path, asks(tmp_path / "film.json", ["films/b.gif"]))
    still = World(tmp_path, tmp_path / "still.json")
    rows = [row("i", "image", "films/b.gif", "What is it?", "this")]
    (tmp_path / "still.json").write_text(json.dumps(rows))
    wanted = tuple(sorted((world.names(), still.names())))
    receipt = streamed(replace(world.unit(archive), wanted=wanted))
    (clip,) = world.clips().values()
    assert clip["kind"] == "video"
    refused = world.pool.table(world.pool.receipts("decode"), "refused", REFUSED).to_pylist()
    assert [row["code"] for row in refused] == ["MEDIA_ANIMATED"]
    shown = [world.pool.table([one.admit(receipt)], "index/media", MEDIA) for one in (world, still)]
    (film_id,), (still_id,) = (table["clip_id"].to_pylist() for table in shown)
    assert film_id == clip["clip_id"] and still_id == refused[0]["key"]
