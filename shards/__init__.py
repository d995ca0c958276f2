"""The contract: what a sample is on disk, how it is named, written, found and verified."""

from importlib.metadata import PackageNotFoundError, version


def tool_version() -> str:
    """The version that is installed, as manifests and `--version` say it."""
    try:
        return version("slowfast-mix")
    except PackageNotFoundError:
        return "source tree"
