"""The contract: what a sample is on disk, how it is named, written, found and verified."""

import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SCRIPT = "slowfast-mix"
"""The console script over the commands of all packages (pipeline.console_script)."""


@cache
def tool_version() -> str:
    """The version that is installed, as manifests and `--version` say it."""
    try:
        return version("slowfast-mix")
    except PackageNotFoundError:
        return "source tree"


def program(package: str) -> str:
    """What a person typed to reach the commands of a package, for messages that say it again."""
    if Path(sys.argv[0]).name != SCRIPT:
        return f"python -m {package}"
    return f"{SCRIPT} train" if package == "train" else SCRIPT
