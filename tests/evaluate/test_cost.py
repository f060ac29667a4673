from __future__ import annotations

import pytest
import torch
from torch import nn

from headwater.errors import InvalidInput
from headwater.evaluate import cost
from headwater.evaluate.cost import peak_memory
from tests.evaluate import nets


def test_what_a_method_costs() -> None:
    found = cost(nets.visual(), nets.pictures(5), "gradient_x_input", batch_size=3, repetitions=2, memory=True)
    assert len(found.seconds) == len(found.forward_seconds) == 2
    assert found.batch_size == 3
    assert found.per_second > 0
    assert found.forwards > 0
    assert found.memory is not None
    assert found.forward_memory is not None
    assert found.memory > found.forward_memory > 0
    assert cost(nets.visual(), nets.pictures(2), repetitions=1).memory is None
    assert cost(nets.visual(), nets.pictures(5), target=[0, 1, 0, 1, 0], batch_size=3, repetitions=1).batch_size == 3


def test_peak_memory_is_what_is_held_at_once() -> None:
    x = torch.rand(1, 1000)

    def work() -> None:
        for _ in range(3):
            held = [x.repeat(100, 1) for _ in range(2)]  # 2 x 400 kB, thrice
            del held

    assert peak_memory(work, [x]) == pytest.approx(800_000, rel=0.05)


def test_a_slow_method_costs_more_forwards() -> None:
    model, x = nn.Sequential(*[nn.Linear(200, 200) for _ in range(4)]).eval(), torch.rand(8, 200)

    def slow(model: nn.Module, x: torch.Tensor, target: object) -> torch.Tensor:
        for _ in range(50):
            model(x)
        return x

    assert cost(model, x, slow, repetitions=3).forwards > 10


def test_bad_arguments_are_told() -> None:
    with pytest.raises(InvalidInput, match="repetitions"):
        cost(nets.visual(), nets.pictures(), repetitions=0)
