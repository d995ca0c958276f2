"""The version of every rule that a manifest freezes: whoever changes a rule changes it here."""

from __future__ import annotations

MANIFEST_VERSION = 3  # mixtures.manifest

SCHEDULE_ALGO = "edf-shares/1"  # mixtures.order.schedule
PERMUTATION_ALGO = "ranked-keys/1"  # mixtures.order.ranking
PACK_ALGO = "bfd-window/2"  # mixtures.order.packing
BATCH_ALGO = "feistel-splitmix64/1"  # mixtures.order.permutation
ROUNDS = 6
"""Of the Feistel network of a permutation."""
RANK_SHARDING_ALGO = "lpt-counts/1"  # mixtures.order.rank_sharding
PATCHES_PER_TOKEN = 16
"""A patch through the vision tower costs about this fraction of a token through the decoder."""
LAYOUT_VERSION = "slowfast-layout/2"  # mixtures.tokens: placement, plan_frames
TEXT_VERSION = "chatml/1"  # mixtures.tokens.text
JOIN_ALGO = "same-clips/1"  # mixtures.selection.join_conversations
CANONICAL_ALGO = "largest-same/1"  # mixtures.selection.canonical_clips

ALGORITHMS: dict[str, dict[str, str | int]] = {
    "schedule": {"algo": SCHEDULE_ALGO},
    "permutation": {"algo": PERMUTATION_ALGO},
    "batch": {
        "algo": BATCH_ALGO,
        "rounds": ROUNDS,
        "deal": RANK_SHARDING_ALGO,
        "patches_per_token": PATCHES_PER_TOKEN,
    },
    "pack": {"algo": PACK_ALGO},
    "layout": {"version": LAYOUT_VERSION},
    "text": {"version": TEXT_VERSION},
}
"""What every manifest names and this version must know; a manifest of another is refused."""
