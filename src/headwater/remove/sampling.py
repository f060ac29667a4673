"""Random sets of features, the same for every sample that has as many."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput


def check_count(name: str, count: Any, least: int) -> None:
    """Refuse what is no whole number of at least ``least``.

    Raises:
        InvalidInput: for it.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise InvalidInput(f"{name} must be a whole number of at least {least}, not {count!r}")


def subsets(count: int, samples: int, generator: torch.Generator, keep: float = 0.5) -> Tensor:
    """Sets of features that each keep every feature with probability ``keep``, bool ``[samples, count]``.

    Drawn feature by feature: more features do not change what is drawn of the first ones.
    """
    return (torch.rand(count, samples, generator=generator, dtype=torch.float64) < keep).T


def orders(present: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """At which place each feature comes in random orders, int64 ``[N or 1, samples, F]``; those not present come last.

    Args:
        present: bool ``[N, F]``.
    """
    keys = torch.rand(present.shape[1], samples, generator=generator, dtype=torch.float64).T
    own = present[:1] if bool(present.all()) else present
    keys = torch.where(own[:, None], keys, torch.inf)
    order = keys.argsort(dim=2)
    places = torch.arange(present.shape[1]).expand_as(order)
    return torch.empty_like(order).scatter_(2, order, places)


def shapley_kernel(count: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Coalitions weighted by the Shapley kernel: all of the sizes that ``samples`` suffices for, the rest at random.

    Sizes are taken from both ends to the middle, where the kernel weighs least; random coalitions come with their
    complements.

    Returns:
        kept features, bool ``[M, count]``, M of at most ``samples``; their weights ``[M]``, which sum to 1; and how
        many of the coalitions, at the end, were drawn: each followed by its complement.

    Source: Lundberg, Lee 2017, Theorem 2; paired sampling: Covert, Lee: Improving KernelSHAP, AISTATS 2021.
    """
    sizes = [(s, count - s) for s in range(1, count // 2 + 1)]
    weight = {s: (count - 1) / (s * (count - s)) for s in range(1, count)}
    total = sum(weight.values())
    left, found, weights = samples, [], []
    while sizes:
        pair = set(sizes[0])
        number = len(pair) * math.comb(count, sizes[0][0])
        rest = sum(weight[s] for both in sizes for s in set(both))
        if number > left or left * sum(weight[s] for s in pair) / rest < number:
            break
        members = torch.tensor(list(combinations(range(count), sizes[0][0])))
        few = torch.zeros(len(members), count, dtype=torch.bool).scatter_(1, members, True)
        for kept in [few, ~few][: len(pair)]:
            found.append(kept)
            weights.append(torch.full((len(kept),), weight[sizes[0][0]] / len(kept), dtype=torch.float64))
        left -= number
        sizes.pop(0)
    drawn = 2 * (left // 2) if sizes else 0
    if drawn:
        share = torch.tensor([sum(weight[s] for s in set(both)) for both in sizes], dtype=torch.float64)
        size = torch.tensor([both[0] for both in sizes])[
            torch.multinomial(share, drawn // 2, True, generator=generator)
        ]
        keys = torch.rand(count, drawn // 2, generator=generator, dtype=torch.float64).T
        kept = keys.argsort(1).argsort(1) < size[:, None]
        found.append(torch.stack([kept, ~kept], 1).flatten(0, 1))
        weights.append((share.sum() / drawn).expand(drawn))
    return torch.cat(found), torch.cat(weights) / total, drawn
