"""`python -m train.ablation.parent_death PARENT WORDS...`: `python -m train WORDS`, while it lives.

A queue that is killed leaves no run behind that goes on by itself: the kernel kills it too.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then be the command."""
    parent, *words = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before this was said
        sys.exit(1)
    sys.argv = ["train", *words]
    runpy.run_module("train", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
