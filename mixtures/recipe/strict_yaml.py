"""YAML without surprises: one small plain document, no aliases, tags, merges or duplicate keys.

Scalars are those of YAML 1.2; a number with a point or an exponent comes out as an exact Decimal.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from shards.errors import UserError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
_BANNED = (yaml.AliasToken, yaml.AnchorToken, yaml.TagToken, yaml.DirectiveToken)
_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
_PLAIN_WORD = "tag:yaml.org,2002:str"
_SCALARS = {
    "null": r"~|null|",
    "bool": r"true|false",
    "int": r"[-+]?(?:0|[1-9][0-9]*)",
    "float": r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?",
}


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader minus its conveniences."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if "<<" in keys or any(key.tag != _PLAIN_WORD for key, _ in node.value):
            raise yaml.YAMLError(f"keys must be plain words: {keys}")
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"duplicate key {twice[0]!r} in line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _exact(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Decimal:
    return Decimal(loader.construct_scalar(node))


_StrictLoader.yaml_implicit_resolvers = {}  # a dict of its own: SafeLoader stays as it is
for _kind, _pattern in _SCALARS.items():
    _regexp = re.compile(f"^(?:{_pattern})$")
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _regexp, None)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _exact)


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors, with numbers as they were written."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


# what the loader takes for a number is one, and a word that looks like one is quoted
_PlainDumper.yaml_implicit_resolvers = _StrictLoader.yaml_implicit_resolvers
_PlainDumper.add_representer(
    Decimal, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", str(value))
)


def load_yaml(path: Path) -> Any:
    """The one document in `path`; UserError says what is not plain about it."""
    try:
        # one byte more than allowed is enough to know that a file is too large
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES} bytes; this is no recipe")
    return parse_yaml(data, str(path))


def parse_yaml(data: bytes, path: str) -> Any:
    """The one document in these bytes, which stand or will stand in `path`."""
    try:
        text = data.decode("utf-8-sig")
        depth = 0
        for token in yaml.scan(text):
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > MAX_DEPTH:
                raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH}")
            if isinstance(token, _BANNED):
                line = token.start_mark.line + 1
                raise UserError(
                    f"{path}: line {line}: aliases, anchors, tags and directives are refused; "
                    "write the value out"
                )
        return yaml.load(text, _StrictLoader)  # noqa: S506, TID251
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not a plain YAML document: {reason}; mend the file") from error


def dump_yaml(tree: Any) -> str:
    """A tree as YAML that is read as the same tree."""
    text: str = yaml.dump(
        tree, Dumper=_PlainDumper, sort_keys=False, default_flow_style=None, width=100
    )
    return text
