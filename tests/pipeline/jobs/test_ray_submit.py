"""`ray up`, `ray submit` and `ray down` over ssh on loopback, in namespaces of their own.

The cluster is docs/ray_cluster_local.yaml with this machine's addresses, user and paths.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from shards.verify import damage
from tests.support import private_namespace, small_world

ROOT = Path(__file__).resolve().parents[3]
TOOLS = ROOT / ".venv/tools"
SSHD = """\
ListenAddress 127.0.0.1
ListenAddress 127.0.0.2
HostKey {home}/host_key
AuthorizedKeysFile {home}/.ssh/id_ed25519.pub
StrictModes no
UsePAM no
PermitRootLogin yes
SetEnv PATH=/usr/local/bin:/usr/bin:/bin:{tools}/usr/bin LD_LIBRARY_PATH={libraries}
"""
JOB = """
set -e
mount --bind "$HOME/passwd" /etc/passwd
mount -t tmpfs tmpfs /run && mkdir /run/sshd
ssh-keygen -q -t ed25519 -N '' -f "$HOME/.ssh/id_ed25519"
ssh-keygen -q -t ed25519 -N '' -f "$HOME/host_key"
"$SSHD" -f "$HOME/sshd_config"
export RAY_AUTH_MODE=token
ray get-auth-token --generate >/dev/null
ray up --yes --no-config-cache "$1"
set +e
ray submit --no-config-cache "$1" pipeline/__main__.py -- build "$2" --address auto --out "$3"
echo "the build ended with $?"
ray submit --no-config-cache "$1" pipeline/__main__.py -- build "$2.gone" --out "$3"
echo "the wrong recipe ended with $?"
python -c "$4" || cat /tmp/ray/session_latest/logs/monitor.log /tmp/ray/session_latest/logs/raylet*
ray down --yes "$1"
echo "raylets left: $(ps -e -o args= | grep -c '[/]raylet/raylet')"
"""

JOINED = """
import ray, time
ray.init("auto", log_to_driver=False)
until = time.monotonic() + 100
while sum(node["Alive"] for node in ray.nodes()) < 2 and time.monotonic() < until:
    time.sleep(1)
alive = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
print("nodes at work:", *alive)
raise SystemExit(len(alive) != 2)
"""
PORTS = (  # two nodes of one machine: a port that both find free may be taken when it is bound
    "--node-manager-port=20001 --object-manager-port=20002 --runtime-env-agent-port=20003"
    " --dashboard-agent-listen-port=20004 --dashboard-agent-grpc-port=20005"
    " --metrics-export-port=20006 --min-worker-port=21000 --max-worker-port=21999"
)


def tool(name: str) -> str:
    """A program of the system, or one that tests/install_tools.sh unpacked; "" if neither."""
    path = f"{os.environ['PATH']}:/usr/sbin:{TOOLS}/usr/sbin:{TOOLS}/usr/bin"
    return shutil.which(name, path=path) or ""


def libraries() -> str:
    """Where the libraries of the unpacked programs lie."""
    return str(next(TOOLS.glob("usr/lib/*-linux-gnu"), TOOLS))


def cluster(home: Path) -> dict[str, Any]:
    """The local variant as shipped, on loopback."""
    text = (ROOT / "docs/ray_cluster_local.yaml").read_text()
    there = str(PurePosixPath(next(iter(yaml.safe_load(text)["file_mounts"]))).parent)
    text = text.replace(f"{there}/venv/bin", f"{Path(sys.executable).parent}:{TOOLS}/usr/bin")
    config: dict[str, Any] = yaml.safe_load(text.replace(there, str(home)))
    _, _, environment = config["setup_commands"]  # the other two install what is here already
    key = f"{home}/.ssh/id_ed25519"
    node = "--num-cpus=1 --object-store-memory=100000000"
    head = "--include-dashboard=false --node-ip-address=127.0.0.1"
    return config | {
        "provider": {
            "type": "local",
            "head_ip": "127.0.0.1",
            "worker_ips": ["127.0.0.2", "127.0.0.3"],
        },
        "auth": {"ssh_user": getpass.getuser(), "ssh_private_key": key},
        "min_workers": 2,
        "max_workers": 2,
        "setup_commands": [environment],
        "head_start_ray_commands": [
            config["head_start_ray_commands"][0],
            f"{config['head_start_ray_commands'][1]} {head} {node}",
        ],
        # `ray stop` of a worker would end the head, which is on the same machine here
        "worker_start_ray_commands": [
            f"{config['worker_start_ray_commands'][1]} {node} {PORTS}"
            " --node-ip-address=$RAY_CLOUD_INSTANCE_ID"
        ],
    }


def prepare(home: Path) -> None:
    """A home with keys' folder, sshd's configuration, and a user database that leads there."""
    (home / ".ssh").mkdir(parents=True)
    (home / ".bashrc").write_text("case $- in *i*) ;; *) return ;; esac\n")
    (home / "sshd_config").write_text(SSHD.format(home=home, tools=TOOLS, libraries=libraries()))
    lines = Path("/etc/passwd").read_text().splitlines()
    users = {line.split(":")[0]: line.split(":") for line in lines}
    users[getpass.getuser()][5:] = [str(home), "/bin/bash"]
    users.setdefault("sshd", ["sshd", "x", "65000", "65534", "", "/run/sshd", "/usr/sbin/nologin"])
    (home / "passwd").write_text("".join(f"{':'.join(words)}\n" for words in users.values()))
    (home / "cluster.yaml").write_text(yaml.safe_dump(cluster(home)))


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    missing = [name for name in ("ssh", "ssh-keygen", "sshd", "rsync") if not tool(name)]
    if missing or private_namespace.why_not():
        why = private_namespace.why_not()
        pytest.skip(why or f"{missing} missing; tests/install_tools.sh unpacks them")
    root = tmp_path_factory.mktemp("submit")
    recipe, home = small_world.make(root), root / "home"
    prepare(home)
    environment = {
        "SSHD": tool("sshd"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/sbin:{TOOLS}/usr/bin",
        "LD_LIBRARY_PATH": libraries(),
    }
    words = [str(home / "cluster.yaml"), str(recipe), str(root / "out"), JOINED]
    return root, private_namespace.run(["sh", "-c", JOB, "job", *words], home, environment, 280)


@pytest.mark.timeout(300)
def test_a_submitted_script_builds(submitted: tuple[Path, subprocess.CompletedProcess]) -> None:
    root, done = submitted
    assert "the build ended with 0" in done.stdout, done.stdout[-6000:] + done.stderr[-6000:]
    manifest_id = json.loads((root / "out/manifest.json").read_text())["manifest_id"]
    assert manifest_id in done.stdout and not list(damage(str(root / "out/shards")))


def test_a_failure_has_its_message_and_status(
    submitted: tuple[Path, subprocess.CompletedProcess],
) -> None:
    done = submitted[1]
    assert "the wrong recipe ended with 1" in done.stdout
    assert "recipe.yaml.gone: No such file or directory; check the path" in done.stdout


def test_a_worker_joins_and_nothing_is_left_when_the_cluster_is_down(
    submitted: tuple[Path, subprocess.CompletedProcess],
) -> None:
    said = submitted[1].stdout
    assert "nodes at work: 127.0.0.1 127.0.0.2" in said, said[-12000:]
    assert "raylets left: 0" in said
