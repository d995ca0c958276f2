"""The same run on a Ray cluster's GPUs: Ray starts one process for each rank, and nothing else.

    ray job submit --working-dir . -- python -m train run CONFIG --manifest M --out OUT --ray 16

Each rank is `python -m train run` as torchrun would start it, on a GPU of its own (on a CPU where
the cluster has no GPU). Ray retries nothing: what died goes on with the same command. `OUT`, the
pool and the manifest lie on a disk that all nodes share.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from shards.errors import UserError

PATIENCE = 600.0
"""Seconds in which the cluster may find room, or grow it."""
GRACE = 120.0
"""Seconds in which the other ranks may end after one did."""
# those that `train.run_folder.signals` takes in every rank
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a rank will run: its node, the GPUs that Ray gave it, a port that is free there."""

    node: str
    gpus: tuple[str, ...]
    port: int


class Host:
    """The actor on a rank's seat: it starts the rank's process, and passes signals on to it."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None

    def seat(self) -> Seat:
        """Where this is."""
        with socket.socket() as free:
            # given back at once: rank 0's TCPStore listens there a moment later
            free.bind(("", 0))
            port = free.getsockname()[1]
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        return Seat(node=ray.util.get_node_ip_address(), gpus=tuple(gpus), port=port)

    def run(self, words: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run one rank to its end; its exit status."""
        # a process of its own: torch's groups, signals and memory are not those of Ray's worker
        command = [sys.executable, "-m", "train", *words]
        self.child = subprocess.Popen(command, env={**os.environ, **environment})  # noqa: S603
        return self.child.wait()

    def send(self, number: int) -> None:
        """Pass a signal on, while there is somebody to take it."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)


def launch(words: Sequence[str], ranks: int, environment: Mapping[str, str]) -> int:
    """Run `python -m train WORDS` on so many ranks; the first exit status that is not 0, or 0.

    UserError where there is no cluster, or none with so much room.
    """
    address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        ray.init(address=address, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise UserError(
            f"--ray: no Ray cluster at {address}; submit the command by `ray job submit`, or run "
            "it on a machine of the cluster"
        ) from error
    try:
        with seated(ranks) as hosts:
            return run_all(hosts, words, environment)
    finally:
        ray.shutdown()


@contextmanager
def seated(ranks: int) -> Iterator[list[Any]]:
    """So many hosts, each with a GPU if the cluster has any, as few nodes as will do."""
    there = ray.cluster_resources()
    # one GPU a rank where there are any; PACK, since ranks of a node talk over NVLink
    bundle = {"CPU": 1.0} | ({"GPU": 1.0} if there.get("GPU") else {})
    group = placement_group([bundle] * ranks, strategy="PACK")
    try:
        if not group.wait(PATIENCE):
            room = ", ".join(f"{there.get(name, 0):.0f} {name}s" for name in bundle)
            raise UserError(
                f"--ray {ranks}: the cluster has {room} in all and no room for {ranks} ranks in "
                f"{PATIENCE:.0f} s; lower --ray, or add nodes"
            )
        remote: Any = ray.remote  # its types know classes, and not all of their options
        # two threads: `send` must get through while `run` waits; no restarts, a rank cannot rejoin
        # its group
        kind = remote(max_concurrency=2, max_restarts=0)(Host)
        yield [
            kind.options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, number),
            ).remote()
            for number in range(ranks)
        ]
    finally:
        remove_placement_group(group)


def run_all(hosts: Sequence[Any], words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Every rank to its end; signals that this process is sent are passed on to all of them."""
    seats = ray.get([host.seat.remote() for host in hosts])
    # ranks of a node are neighbours, as torchrun numbers them: NCCL builds its rings over them
    order = sorted(range(len(hosts)), key=lambda number: seats[number].node)
    hosts, seats = [hosts[number] for number in order], [seats[number] for number in order]
    waiting = [
        host.run.remote(list(words), {**environment, **own})
        for host, own in zip(hosts, environments(seats), strict=True)
    ]
    sent: list[int] = []
    # noted here and sent from the loop: a handler may not call Ray
    before = {one: signal.signal(one, lambda number, _: sent.append(number)) for one in SIGNALS}
    try:
        return _wait(hosts, waiting, sent)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def environments(seats: Sequence[Seat]) -> list[dict[str, str]]:
    """What torchrun would tell each rank; those of a node see all GPUs that it gave the run."""
    gpus: dict[str, list[str]] = {}
    for seat in seats:
        gpus.setdefault(seat.node, []).extend(seat.gpus)
    sizes = Counter(seat.node for seat in seats)
    local = Counter[str]()
    by_rank = []
    for rank, seat in enumerate(seats):
        variables = {
            "RANK": str(rank),
            "WORLD_SIZE": str(len(seats)),
            "LOCAL_RANK": str(local[seat.node]),
            "LOCAL_WORLD_SIZE": str(sizes[seat.node]),
            "MASTER_ADDR": seats[0].node,
            "MASTER_PORT": str(seats[0].port),
        }
        # all GPUs of the node: NCCL's peer-to-peer needs to see the neighbours, LOCAL_RANK picks
        # one
        if gpus[seat.node]:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[seat.node])
        local[seat.node] += 1
        by_rank.append(variables)
    return by_rank


def _wait(hosts: Sequence[Any], waiting: list[Any], sent: list[int]) -> int:
    """The first status that is not 0; after it the others are asked to stop, and have GRACE."""
    status = 0
    left = GRACE
    while waiting and left > 0:
        while sent:
            _send(hosts, sent.pop(0))
        done, waiting = ray.wait(waiting, timeout=1.0)
        for one in done:
            ended = _status(one)
            # the others wait for this rank in a collective, which ends by torch's time-out or by
            # force
            if ended and not status:
                status = ended
                _send(hosts, signal.SIGTERM)
        # counted in waits of a second in which nobody ended, so the patience is about GRACE seconds
        left -= 1.0 if status and not done else 0.0
    return status


def _send(hosts: Sequence[Any], number: int) -> None:
    for host in hosts:
        host.send.remote(int(number))


def _status(ended: Any) -> int:
    """The exit status of a rank; 1 for one that went with its node."""
    with suppress(ray.exceptions.RayError):
        return int(ray.get(ended))
    return 1
