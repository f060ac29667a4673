"""Small models and samples that the tests of evaluation share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pictures(count: int = 3, side: int = 12) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def visual(side: int = 12) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * (side // 2) ** 2, 4),
    ).eval()  # fmt: skip


class Words(nn.Module):
    """Ids and a mask to logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.words, self.out = nn.Embedding(20, 5, padding_idx=0), nn.Linear(5, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        kept = attention_mask[..., None].to(self.words.weight.dtype)
        return self.out((torch.tanh(self.words(input_ids)) * kept).sum(1) / kept.sum(1).clamp(min=1))


def tabular(features: int = 6) -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
