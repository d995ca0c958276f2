"""Run plain functions over Ray: a local cluster started here, or one that is running.

The only `import ray` outside train/on_ray.py. Ray never retries on its own (a task has side effects
and its own books): a unit whose worker died is tried again here, and given up after three deaths. A
machine that went away is nobody's fault and counts apart.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import ray
from ray._private import ray_constants
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.jobs.workers import Died, Result, Unit, Workers
from shards.errors import UserError
from shards.outcome import DEATHS
from shards.store import private_folder

LOSSES = 10  # of machines under one unit: past that the unit is what takes them down
_STORE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt(Generic[Unit]):
    unit: Unit
    deaths: int = 0
    losses: int = 0


class RayWorkers(Workers):
    """Ray's; `umask` is that of this process, where they were started under a narrower one."""

    def __init__(self, umask: int | None = None, package: Path | None = None) -> None:
        self.umask, self.package = umask, package

    def _remote(self, function: Callable[..., Result], cpus: int, memory: int = 0) -> Any:
        umask = self.umask

        @functools.wraps(function)
        def run(*arguments: Any) -> Result:
            """The function under the user's umask."""
            if umask is not None:
                os.umask(umask)  # what the work leaves behind is as readable as its user wants it
            return function(*arguments)

        # max_retries=0: Ray would repeat a task that killed its worker, and count nothing
        return ray.remote(max_retries=0, num_cpus=cpus, memory=memory)(run)

    def map(
        self,
        function: Callable[[Unit], Result],
        units: Iterable[Unit],
        memory: int = 0,
        *,
        on_gpu: bool = False,
    ) -> Iterator[Result | Died[Unit]]:
        """function(unit) for each unit, as they finish; at most two per worker are in flight.

        Ray is asked for the memory of each, or for all that the largest machine has, and with
        `on_gpu` for a GPU where the cluster has one: a CPU does the same more slowly.
        """
        remote = self._remote(function, 1, min(memory, _largest()) if memory else 0)
        if on_gpu and _has_gpus():
            remote = remote.options(num_gpus=1)
        fresh = (_Attempt(unit=unit) for unit in units)
        again: list[_Attempt[Unit]] = []
        running: dict[ray.ObjectRef[Result], _Attempt[Unit]] = {}
        while True:
            # two per CPU keep workers busy while results travel, and bound what is in flight
            while len(running) < 2 * _cpus():
                attempt = again.pop() if again else next(fresh, None)
                if attempt is None:
                    break
                running[remote.remote(attempt.unit)] = attempt
            if not running:
                return
            # as they finish, not as they began: a slow unit holds up nobody
            done, _ = ray.wait(list(running), num_returns=1)
            outcome = _outcome(done[0], running.pop(done[0]))
            if isinstance(outcome, _Attempt):
                again.append(outcome)
            else:
                yield outcome

    def each_node(self, function: Callable[[], Result]) -> dict[str, Result]:
        """What the function returns on every other machine of the cluster, by host name."""
        # no CPU is asked for, since all of them may be busy
        remote = self._remote(function, 0)
        here = platform.node()
        # the driver's machine was checked before
        references = {}
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if node["Alive"] and node["NodeManagerHostname"] != here:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                reference = remote.options(scheduling_strategy=there).remote()
                references[f"{node['NodeManagerHostname']} {node['NodeManagerAddress']}"] = (
                    reference
                )
        try:
            return {name: ray.get(reference) for name, reference in references.items()}
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None


def _cpus() -> int:
    """What the cluster has now: it grows with what waits, and loses machines."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("CPU", 1)))


def _has_gpus() -> bool:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("GPU", 0) >= 1


def _largest() -> int:
    """Bytes that Ray gives out on its largest machine: a unit that asks for more never runs."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return max(int(node["Resources"].get("memory", 0)) for node in nodes if node["Alive"])


def _outcome(
    reference: ray.ObjectRef[Result], attempt: _Attempt[Unit]
) -> Result | _Attempt[Unit] | Died[Unit]:
    """The result, the next attempt, or Died; a UserError of the function is raised as it was."""
    try:
        return ray.get(reference)
    # counted by unit: what kills its worker is tried again, DEATHS times in all
    except (WorkerCrashedError, OutOfMemoryError):
        attempt = replace(attempt, deaths=attempt.deaths + 1)
    # a machine that went away says nothing about the unit
    except (NodeDiedError, ObjectLostError):
        attempt = replace(attempt, losses=attempt.losses + 1)
    except LocalRayletDiedError as error:
        raise UserError(
            "Ray's node on this machine died (was it killed, is memory short?); run the same "
            "command again: what was finished is not repeated"
        ) from error
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None
    is_over = attempt.deaths == DEATHS or attempt.losses == LOSSES
    return Died(unit=attempt.unit) if is_over else attempt


def _not_started(address: str | None, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if address:
        return f"no Ray cluster at {address!r}: {reason}; check --address"
    return (
        f"Ray did not start on this machine: {reason} Is it busy (Ray waits 30 seconds), is memory "
        "short? Run the same command again: what was finished is not repeated"
    )


def _start_privately() -> int:
    """Start Ray for this user alone, on loopback; the umask of before.

    Whoever reaches Ray's sockets and has its token runs code as this user: both are made for nobody
    else, and Ray listens on 127.0.0.1 only.
    """
    folder = os.environ.get("RAY_TMPDIR") or "/tmp"  # noqa: S108  paths of sockets must be short
    private = private_folder(Path(folder) / f"ray-{os.geteuid()}")
    umask = os.umask(0o077)
    # the flag that Ray reads when it chooses this node's address
    routed = ray_constants.ENABLE_RAY_CLUSTER
    try:
        _check_token()
        ray_constants.ENABLE_RAY_CLUSTER = False  # as on macOS: this node's address is 127.0.0.1
        ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=str(private / "r"),  # which Ray opens to everybody
        )
    finally:
        os.umask(umask)
        ray_constants.ENABLE_RAY_CLUSTER = routed
    return umask


def _check_token() -> None:
    """UserError if other users of this machine can read the token with which Ray is commanded."""
    configured = os.environ.get("RAY_AUTH_TOKEN_PATH")
    # Ray's token gives command over the cluster
    path = (Path(configured) if configured else Path.home() / ".ray/auth_token").absolute()
    if not path.exists():
        return
    readable = path.stat().st_mode & 0o044
    entered = 0o011
    # readable for others only if every folder above lets them through
    for folder in path.parents:
        entered &= folder.stat().st_mode & 0o011
    if readable >> 2 & entered:
        raise UserError(
            f"{path}: other users of this machine can read Ray's token, and whoever has it runs "
            "code as you; delete it (Ray makes another), or give it the mode 600"
        )


def _package() -> Path | None:
    """The working directory of this job, if Ray unpacked it out of a package."""
    shipped = str(ray.get_runtime_context().runtime_env.get("working_dir", ""))
    return Path.cwd() if shipped.endswith(".zip") else None


@contextmanager
def connect(address: str | None) -> Iterator[Workers]:
    """Workers at `address` (or RAY_ADDRESS, which `ray job submit` sets), else started here."""
    address = address or os.environ.get("RAY_ADDRESS")
    # Ray's own retries after memory ran out, and its hiding of GPUs from tasks that ask for none
    os.environ.setdefault("RAY_task_oom_retries", "2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    umask = None
    try:
        if address:
            _check_token()
            ray.init(address=address, logging_level=logging.ERROR)
        else:
            umask = _start_privately()
    except UserError:
        raise
    except Exception as error:  # a node that is too slow to start is a bare one
        raise UserError(_not_started(address, error)) from error
    try:
        yield RayWorkers(umask, _package())
    finally:
        ray.shutdown()
