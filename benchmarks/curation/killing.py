"""A build on a cluster of its own, calm or under a schedule of SIGKILLs.

Run only in a private PID namespace (tests.support.private_namespace): it kills what it finds there.
    python -m benchmarks.curation.killing RECIPE OUT SEED RECEIPTS      (SEED `calm`: nothing is
    killed)
Prints one JSON object: how many of each kind were killed, how often the driver was started, how
often it ended in an error of its own, seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KINDS = ("worker",) * 5 + ("driver",) * 3 + ("raylet",) * 2
NODES = ("127.0.0.2", "127.0.0.3")
START = ("ray", "start", "--object-store-memory=100000000", "--disable-usage-stats")
PAUSE = 0.02
ERRORS = 3
SPAN = 0.7  # the rest of the receipts come within a few seconds, too short to strike ten times


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One SIGKILL: of what, when so many receipts stand in the pool, and so long after."""

    kind: str
    after: int
    delay: float


def schedule(seed: int, receipts: int) -> list[Kill]:
    """KINDS in an order drawn by the seed, spread over SPAN of the receipts of a calm build."""
    draw = random.Random(seed)
    kinds = draw.sample(KINDS, len(KINDS))
    return [
        Kill(
            kind=kind,
            after=int((place + draw.random()) * SPAN * receipts / len(kinds)),
            delay=draw.random(),
        )
        for place, kind in enumerate(kinds)
    ]


class Cluster:
    """A head that does no work, and NODES with one worker each, on loopback."""

    def __init__(self) -> None:
        head = ("--head", "--port=6379", "--node-ip-address=127.0.0.1", "--num-cpus=0")
        subprocess.run([*START, *head, "--include-dashboard=false"], check=True, stdout=sys.stderr)
        for node in NODES:
            self.start(node).wait()

    def start(self, node: str) -> subprocess.Popen[bytes]:
        where = ("--address=127.0.0.1:6379", f"--node-ip-address={node}", "--num-cpus=1")
        return subprocess.Popen([*START, *where], stdout=sys.stderr)


def processes() -> Iterator[tuple[int, str]]:
    """(pid, command line) of all that this namespace holds."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            yield int(folder.name), (folder / "cmdline").read_text().replace("\0", " ")


def busy() -> list[int]:
    """Workers in the midst of a unit: Ray writes `ray::function` into their titles.

    Idle ones are `ray::IDLE`, a node's own agents `ray::DashboardAgent` and the like.
    """
    return [pid for pid, line in processes() if line.startswith("ray::") and line[5:6].islower()]


def raylet(node: str) -> list[int]:
    return [
        pid
        for pid, line in processes()
        if line.split(" ", 1)[0].endswith("/raylet") and f"--node_ip_address={node}" in line
    ]


class Job:
    """The build: started again whenever it was killed, or ended in an error."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command, self.starts, self.errors = command, 0, 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.process = subprocess.Popen(self.command, stdout=sys.stderr)

    def is_done(self) -> bool:
        """Whether the build is finished; one that failed is started again, and counted."""
        status = self.process.poll()
        if status:
            self.errors += 1
            if self.errors == ERRORS:
                raise RuntimeError(f"the build failed {ERRORS} times, the last with {status}")
            self.start()
        return status == 0


def strike(kill: Kill, job: Job, cluster: Cluster, draw: random.Random) -> bool:
    """Carry out one kill; False while there is nothing of its kind to kill."""
    if kill.kind == "driver":
        job.process.kill()
        job.process.wait()
        job.start()
        return True
    node = draw.choice(NODES)
    victims = busy() if kill.kind == "worker" else raylet(node)
    if not victims or not busy():
        return False
    os.kill(draw.choice(victims), signal.SIGKILL)
    if kill.kind == "raylet":
        cluster.start(node)
    return True


def main(recipe: str, out: str, seed: str, receipts: int) -> None:
    cluster = Cluster()
    kills = [] if seed == "calm" else schedule(int(seed), receipts)
    draw, killed = random.Random(seed), Counter[str]()
    folder, begun = Path(out, "pool/receipts"), time.monotonic()
    command = [sys.executable, "-m", "pipeline", "build", recipe, "--out", out]
    job = Job([*command, "--address", "127.0.0.1:6379"])
    for kill in kills:
        while not job.is_done() and len([*folder.glob("*.json")]) < kill.after:
            time.sleep(PAUSE)
        time.sleep(kill.delay)
        while not job.is_done() and not strike(kill, job, cluster, draw):
            time.sleep(PAUSE)
        killed[kill.kind] += job.process.poll() is None
    while not job.is_done():
        time.sleep(PAUSE)
    told = {"killed": killed, "starts": job.starts, "errors": job.errors}
    print(json.dumps(told | {"seconds": time.monotonic() - begun}))  # noqa: T201


if __name__ == "__main__":
    _, recipe, out, seed, receipts = sys.argv
    main(recipe, out, seed, int(receipts))
