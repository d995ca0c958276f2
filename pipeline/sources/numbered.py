"""Ids and texts by number, packed: some 30 bytes an id, where Python's objects take 150."""

from __future__ import annotations

from array import array

NBYTES = 16
_EMPTY = 0
_LEAST = 1 << 10


class NumberedIds:
    """Distinct ids of 128 bits, numbered in the order in which they come.

    A hash table with open addressing and linear probing (Knuth, volume 3, 6.4), whose slots hold
    numbers; the ids themselves lie one behind the other.
    """

    def __init__(self) -> None:
        self._ids = bytearray()
        self._slots = array("I", bytes(4 * _LEAST))

    def __len__(self) -> int:
        return len(self._ids) // NBYTES

    def find(self, wanted: bytes) -> int:
        """The number of an id, -1 where it did not come yet."""
        return self._slots[self._slot(wanted)] - 1

    def add(self, wanted: bytes) -> int:
        """The number of an id, a new one where it did not come yet."""
        slot = self._slot(wanted)
        if self._slots[slot] == _EMPTY:
            self._ids += wanted
            self._slots[slot] = len(self)
            # at two thirds full, probes grow long
            if 3 * len(self) > 2 * len(self._slots):
                self._grow()
            return len(self) - 1
        return self._slots[slot] - 1

    def _slot(self, wanted: bytes) -> int:
        """Where the id is, or would be."""
        # ids are hashes: any of their bits will do
        mask = len(self._slots) - 1
        slot = int.from_bytes(wanted[:8], "little") & mask
        while number := self._slots[slot]:
            if self._ids[NBYTES * (number - 1) : NBYTES * number] == wanted:
                break
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        self._slots = array("I", bytes(8 * len(self._slots)))
        for number in range(len(self)):
            at = NBYTES * number
            self._slots[self._slot(bytes(self._ids[at : at + NBYTES]))] = number + 1


class NumberedTexts:
    """Texts, numbered in the order in which they come."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, text: str) -> None:
        """One more text."""
        # published ids may hold half of a pair, which UTF-8 has no bytes for
        self._data += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._data))

    def __getitem__(self, number: int) -> str:
        start, end = self._ends[number], self._ends[number + 1]
        return self._data[start:end].decode("utf-8", "surrogatepass")
