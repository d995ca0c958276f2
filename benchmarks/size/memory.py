"""The most memory that this process has held."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Of this program alone: `ru_maxrss` also counts what its parent held when it began it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) << 10
