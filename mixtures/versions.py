"""The version of every rule that a manifest freezes: whoever changes a rule changes it here."""

from __future__ import annotations

CANONICAL_ALGO = "largest-near/2"
JOIN_ALGO = "same-clips/1"
LAYOUT_VERSION = "slowfast-layout/1"
MANIFEST_VERSION = 2
BATCH_ALGO = "feistel-splitmix64/1"
DEAL_ALGO = "lpt-counts/1"
PATCHES_PER_TOKEN = 16
"""A patch through the vision tower costs about this fraction of a token through the decoder."""
PACK_ALGO = "bfd-window/2"
PERMUTATION_ALGO = "feistel-splitmix64/1"
ROUNDS = 6
SCHEDULE_ALGO = "edf-period/2"
TEXT_VERSION = "chatml/1"

ALGORITHMS: dict[str, dict[str, str | int]] = {
    "schedule": {"algo": SCHEDULE_ALGO},
    "permutation": {"algo": PERMUTATION_ALGO, "rounds": ROUNDS},
    "batch": {"algo": BATCH_ALGO, "deal": DEAL_ALGO, "patches_per_token": PATCHES_PER_TOKEN},
    "pack": {"algo": PACK_ALGO},
    "layout": {"version": LAYOUT_VERSION},
    "text": {"version": TEXT_VERSION},
}
"""What a manifest names and this version must know; a manifest of another is refused."""
