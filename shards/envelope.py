"""The envelope of every small JSON file that decides: canonical JSON with the sha256 of the rest.

    {"schema": "slowfast-mix/receipt/2", "sha256": "<64 hex>", ...}

It guards against damage and against files of other versions, not against whoever can write: there
are no keys. A file is as it was written to the byte, or it is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shards.errors import DamagedData, UserError
from shards.ids import canonical_json, sha256_hex

_OWN = ("schema", "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A kind of file: its schema with a version, and what to do about one that cannot be read.

    `if_damaged` and `if_outdated` end the sentence that names the file: "remove it and run again".
    """

    schema: str
    if_damaged: str
    if_outdated: str

    def seal(self, value: Mapping[str, Any]) -> bytes:
        """The bytes of a file that says `value`: strings, integers, lists and mappings of them.

        ValueError on a float (shards.ids.canonical_json) and on the keys `schema` and `sha256`.
        """
        if taken := [name for name in _OWN if name in value]:
            raise ValueError(f"the envelope writes {taken} itself")
        # hashed with its schema, so that a file of one kind cannot pass for another
        named = {**value, "schema": self.schema}
        return canonical_json(named | {"sha256": sha256_hex(canonical_json(named))})

    def unseal(self, data: bytes, where: str) -> dict[str, Any]:
        """What was sealed in these bytes of the file `where`.

        UserError for a file of another version, DamagedData for bytes that nobody sealed.
        """
        try:
            # sealed again and compared to the byte: spacing, key order, duplicate keys, all of it
            # counts
            value = json.loads(data)
            rest = {name: value[name] for name in value if name not in _OWN}
            if self.seal(rest) == data:
                return rest
            outdated = _is_of_another_version(value, self.schema)
        # whatever hostile or torn bytes lead the parser to
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            outdated = False
        if outdated:
            raise UserError(
                f"{where}: written by another version (schema {value.get('schema')!r}, this one "
                f"reads {self.schema!r}); {self.if_outdated}"
            )
        raise DamagedData(f"{where}: not as it was written; {self.if_damaged}")


def _is_of_another_version(value: Mapping[str, Any], schema: str) -> bool:
    """Whether these are whole under another schema, or of before the envelope, without a sha256."""
    # whole under its own schema: written by another version, not damaged
    rest = {name: value[name] for name in value if name != "sha256"}
    digests = (None, sha256_hex(canonical_json(rest)))
    return value.get("schema") != schema and value.get("sha256") in digests
