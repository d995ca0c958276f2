"""PNG: every chunk has a checksum, and Pillow passes over those of the pixels."""

from __future__ import annotations

import zlib

from pipeline.media.decoded import Broken

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_chunks(data: bytes) -> None:
    """Raise Broken unless each chunk up to IEND is whole: TRUNCATED or DAMAGED."""
    at = len(_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        # length, type, data, CRC-32 over type and data (PNG specification, 5.3)
        head = data[at : at + 8]
        end = at + 12 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or end > len(data):
            raise Broken("TRUNCATED", f"ends in the chunk at byte {at}")
        kind = head[4:]
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(
            data[end - 4 : end], "big"
        ):
            raise Broken("DAMAGED", f"the chunk at byte {at} is not what its checksum says")
        at = end
