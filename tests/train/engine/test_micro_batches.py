from __future__ import annotations

import pytest
import torch

from shards.errors import UserError
from tests.support.tiny_model import LAYOUT, mixed_samples, tiny_model
from tests.support.tiny_run import TINY
from train.data.collate import build_pack
from train.engine.micro_batches import on_device
from train.engine.torch_engine import TorchEngine


def test_where_memory_ends_the_pack_is_named_with_its_numbers_and_a_remedy() -> None:
    engine = TorchEngine(TINY, tiny_model())
    pack = build_pack(mixed_samples(), LAYOUT)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    engine.model.projector.register_forward_hook(full)
    tokens, patches = len(pack.tokens), len(pack.patches)
    said = (
        rf"pack of 5 samples \(a, b, c and 2 more\): {tokens} tokens, {patches} patches; "
        r"set checkpoint: true .*tried to allocate 2 GiB"
    )
    with pytest.raises(UserError, match=said):
        engine.backward([pack], 1)


def test_packs_come_in_order_with_their_own_arguments() -> None:
    packs = [build_pack(mixed_samples()[:count], LAYOUT) for count in (1, 3, 2)]
    taken = list(on_device(packs, torch.device("cpu")))
    assert [pack for pack, _ in taken] == packs
    assert [inputs["input_ids"].shape[1] for _, inputs in taken] == [len(p.tokens) for p in packs]
