"""python -m benchmarks: list them; python -m benchmarks NAME: run one.

A table for people, then one JSON object as the last line:
{"benchmark": NAME, "bars": [{"what", "value", "bar", "holds"}, ...]}; status 0 when it ran.

Example: python -m benchmarks loader
"""

from __future__ import annotations

import argparse

from benchmarks.frame import NAMES, conclude, load, show
from benchmarks.peers import install_all
from mixtures.console import Console
from shards.errors import Parser, UserError, run_command


def main() -> None:
    parser = Parser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="which one; nothing lists them; `all` runs all")
    parser.add_argument("--setup", action="store_true", help="install the peers in .venv-peers/")
    arguments = parser.parse_args()
    console = Console()
    if arguments.setup:
        install_all()
    elif arguments.name is None:
        for name in NAMES:
            console.print(f"{name:<12} {load(name)[0]}", highlight=False, soft_wrap=True)
    else:
        for name in NAMES if arguments.name == "all" else (arguments.name,):
            run(console, name)


def run(console: Console, name: str) -> None:
    if name not in NAMES:
        raise UserError(f"no benchmark {name!r}; there are: {', '.join(NAMES)}")
    bars = load(name)[1](console)
    show(console, bars)
    conclude(name, bars)


if __name__ == "__main__":
    run_command(main)
