"""python -m shards verify DIR: check every byte of a folder of shards.

Example: python -m shards verify runs/demo/stage2/shards
"""

from __future__ import annotations

import argparse
import sys

from shards import program
from shards.errors import Parser, UserError, run_command
from shards.store import Store
from shards.verify import damage


def parser() -> Parser:
    """The command line."""
    top = Parser(
        prog=program("shards"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="check every byte, name what is damaged")
    verify.add_argument("dir", help="a folder written by `python -m pipeline pack` or `build`")
    return top


def main() -> None:
    """Parse the command line and run it."""
    arguments = parser().parse_args()
    if not Store(arguments.dir).exists("receipt.json"):
        raise UserError(f"{arguments.dir}: no receipt.json here; give the folder of the shards")
    # all faults are told, not the first alone
    faults = list(damage(arguments.dir))
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    sys.stdout.write(f"{arguments.dir}: {len(faults)} faults\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    run_command(main)
