"""The media sandbox against the code inside it: as whoever runs the tests, as a user, and where
there are no namespaces. The canary is tried on an open door too, or it would prove nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.media import canary, confinement, decode, sandbox, system_calls
from pipeline.media.decoded import MediaRefusal
from shards.errors import UserError
from shards.profile import Profile
from tests.hostile.videos import plain

ROOT = Path(__file__).resolve().parents[2]
_CHECK = (
    "from pipeline.media import canary; found = canary.found(); print(found);"
    "raise SystemExit(0 if found.kind == {kind!r} and not found.open else str(found))"
)
WITHOUT_NAMESPACES = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"',
    "sh",
)
AS_A_USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


def has_namespaces() -> bool:
    return not confinement.why_no_namespaces()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary, asked anew; what it says is not kept for other tests."""
    monkeypatch.setattr(canary, "found", canary.found.__wrapped__)


@pytest.mark.parametrize("kind", ["namespaces", "landlock"])
def test_nothing_is_open_in_either_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "namespaces" and not has_namespaces():
        pytest.skip(confinement.why_no_namespaces())
    monkeypatch.setattr(confinement, "kind", lambda: kind)
    found = canary.found()
    assert found.open == ()
    assert str(found) == f"{kind}, 12 of 12 escapes confined"


def test_the_canary_finds_every_open_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "prefix", lambda *_: [])
    unprivileged = {"capability", "system"} if os.geteuid() else set()
    assert set(canary.ESCAPES) - set(canary.found().open) <= unprivileged


@pytest.mark.parametrize("missing", ["filter", "landlock"])
def test_a_layer_that_is_missing_is_told(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the filter calls and children are open; without Landlock files are."""
    monkeypatch.setattr(confinement, "kind", lambda: "landlock")
    if missing == "filter":
        monkeypatch.setattr(system_calls, "compiled", bytes)
        expected = {"fork", "session", "calls"}
    else:
        monkeypatch.setattr(confinement, "view", lambda _: ("/",))
        expected = {"secrets", "system"}
    found = canary.found()
    assert expected <= set(found.open)
    monkeypatch.setattr(canary, "found", lambda: found)
    with pytest.raises(UserError, match=r"does not hold: landlock.*--no-sandbox"):
        decode.check_tools()
    assert "open: " in decode.check_tools(no_sandbox=True)


def checked(
    before: tuple[str, ...], kind: str, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    command = [*before, python, "-c", _CHECK.format(kind=kind)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_holds_where_user_namespaces_are_off() -> None:
    """As in a default container: the limit is set inside a namespace of the test's own."""
    if not has_namespaces():
        pytest.skip(confinement.why_no_namespaces())
    done = checked(WITHOUT_NAMESPACES, "landlock")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "landlock, 12 of 12 escapes confined\n"


def test_it_holds_for_a_user_who_is_not_root() -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("not root, so the other tests are those of a user")
    found = [each for each in (sys.executable, "/usr/bin/python3") if serves(each)]
    if not found:
        pytest.skip("no Python of this machine that users may run has the packages")
    done = checked(AS_A_USER, "namespaces" if has_namespaces() else "landlock", found[0])
    assert done.returncode == 0, done.stderr


def serves(python: str) -> bool:
    """Whether a user can run this Python, and finds its library where root does."""
    script = (
        "import sys, numpy, PIL, pyarrow; sys.version_info >= (3, 11) and print(sys.base_prefix)"
    )
    said = [
        subprocess.run([*before, python, "-c", script], capture_output=True, cwd="/", check=False)
        for before in ((), AS_A_USER)
    ]
    return said[0].stdout == said[1].stdout != b""


@pytest.mark.parametrize(
    "name",
    [
        "Permission denied.mp4",
        "Format not on whitelist.mp4",
        "Cannot allocate memory.mp4",
        "a\n[x] Codec (evil) not on whitelist '.mp4",
        "bwrap: no.mp4",
        "[bold].mp4",
    ],
)
def test_a_name_says_nothing_about_a_file(name: str, tmp_path: Path) -> None:
    good = plain(tmp_path)
    for made, expected in ((good.read_bytes(), ""), (bytes(1000), "MEDIA_UNREADABLE")):
        (tmp_path / name).write_bytes(made)
        found = decode.decode(tmp_path / name, "video", Profile())
        assert (found.code if isinstance(found, MediaRefusal) else "") == expected
        if isinstance(found, MediaRefusal):
            assert found.detail == "the file: Invalid data found when processing input"


def test_a_file_that_may_not_be_read_is_the_users_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(1000))
    path.chmod(0)
    if os.geteuid() == 0:  # whom a mode does not keep out, but whose rights stay outside
        os.chown(path, 65534, 65534)
    with pytest.raises(UserError, match=r"a\.mp4: not readable; give rights"):
        decode.decode(path, "video", Profile())


def test_a_link_that_takes_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"token")
    (tmp_path / "a.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(Exception, match="no regular file"), sandbox.opened(tmp_path / "a.mp4"):
        pass
