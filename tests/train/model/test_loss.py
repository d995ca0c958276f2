"""The loss: supervised rows only, in chunks, equal to the plain one."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from train.model.loss import supervised_losses


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(hidden @ weight.T, labels, ignore_index=-100, reduction="sum")


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 11 * 3, 1 << 20])
def test_loss_and_gradients_equal_full_logits(chunk_bytes: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(17, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 11, (17,))
    labels[::3] = -100
    ours = supervised_losses(hidden, weight, labels, chunk_bytes).sum()
    theirs = plain(hidden, weight, labels)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=0)
    for mine, other in zip(
        torch.autograd.grad(ours, (hidden, weight)),
        torch.autograd.grad(theirs, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_no_supervised_row_costs_nothing_and_stays_in_the_graph() -> None:
    hidden = torch.randn(4, 5, requires_grad=True)
    weight = torch.randn(11, 5, requires_grad=True)
    loss = supervised_losses(hidden, weight, torch.full((4,), -100)).sum()
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, (hidden, weight)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_no_more_logits_than_one_chunk_are_kept() -> None:
    hidden = torch.randn(64, 8, requires_grad=True)
    weight = torch.randn(512, 8, requires_grad=True)
    kept: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        supervised_losses(hidden, weight, torch.zeros(64, dtype=torch.int64), 4 * 512 * 8)
    assert max(kept) < 64 * 512
