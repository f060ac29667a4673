"""Log-odds of mixtures: one soft-min over rivals, one soft-min and one soft-max over representatives, one linear unit.

For clusters ``k`` with representatives ``j`` of log-weight ``ℓ_j + w_j``, and ``s_k = power · log Σ_j exp(ℓ_j + w_j)``,
the log-odds of cluster ``c`` against all others are

    f_c = s_c - log Σ_{k≠c} exp s_k = min_{k≠c} { min_{j∈k} { max_{i∈c} { power · (ℓ_i + w_i - ℓ_j - w_j) } } }

with soft minima and maxima (review, Eq. 5 and the equation after it, with ``ℓ = -γ d²``, ``power = β/γ`` and
``w = -log Z``). Kernel k-means, k-means, Gaussian mixtures, nearest centroids and the sign of a kernel machine are all
of this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput
from headwater.neuralize.operators import operator
from headwater.propagate.pooling import entropy, shares
from headwater.propagate.rules import Gradient, Proportional, Rule, WinnerTakesAll

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

POOLING: dict[str, Rule] = {
    "gradient": Gradient(),
    "proportional": Proportional(),
    "winner_takes_all": WinnerTakesAll(),
}
_STABILIZER = 1e-6  # of linear units between two representatives, in units of log-odds
_PAIRS = 2**22  # linear units formed at a time
_NEGLIGIBLE = 1e-20  # weight of a representative below which no digit of a double changes


def pooling_rule(name: str) -> Rule:
    """A rule for soft pooling by name.

    Raises:
        InvalidInput: for an unknown name; the text lists the known ones.
    """
    if name not in POOLING:
        raise InvalidInput(f"Unknown pooling {name!r}: choose from {', '.join(POOLING)}")
    return POOLING[name]


class LogOdds(nn.Module):
    """Log-odds of each cluster against the others: log-weights ``[N, M]`` to ``[N, K]``.

    Args:
        sizes: how many representatives each of the K clusters has; they lie side by side.
        log_weights: ``[M]``, what is added to each representative's log-weight.
        power: β/γ of the power assignment.
        hard: maxima instead of their soft versions: the margin by which a cluster is nearest.
        pooling: "gradient", "proportional" or "winner_takes_all", where no row of the composite says otherwise.

    Raises:
        InvalidInput: fewer than two clusters, an empty one, or an unknown pooling.
    """

    log_weights: Tensor
    group: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        log_weights: Tensor,
        power: float = 1.0,
        hard: bool = False,
        pooling: str = "gradient",
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise InvalidInput(f"Log-odds need at least two clusters, none of them empty; these hold {list(sizes)}")
        self.sizes, self.power, self.hard, self.rule = list(sizes), power, hard, pooling_rule(pooling)
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("group", torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(self.sizes)))

    def forward(self, logits: Tensor) -> Tensor:
        return log_odds(logits, self)

    def scores(self, logits: Tensor) -> Tensor:
        """``s_k``, ``[N, K]``."""
        z = logits + self.log_weights
        if len(self.sizes) == z.shape[1]:
            return self.power * z
        pool = torch.amax if self.hard else torch.logsumexp
        return self.power * torch.stack([pool(part, 1) for part in z.split(self.sizes, 1)], 1)

    def within(self, logits: Tensor) -> Tensor:
        """Weight of each representative within its cluster, ``[N, M]``."""
        z = logits + self.log_weights
        parts = []
        for part in z.split(self.sizes, 1):
            hard = (part == part.amax(1, keepdim=True)).to(part.dtype)
            parts.append(hard / hard.sum(1, keepdim=True) if self.hard else part.softmax(1))
        return torch.cat(parts, 1)

    def rivals(self, scores: Tensor, c: int) -> tuple[Tensor, Tensor]:
        """Weights ``[N, K]`` of the clusters other than ``c``, and their pooled score ``[N]``."""
        own = torch.arange(scores.shape[1], device=scores.device) == c
        others = scores.masked_fill(own, -torch.inf)
        if self.hard:
            largest = (others == others.amax(1, keepdim=True)).to(others.dtype)
            return largest / largest.sum(1, keepdim=True), others.amax(1)
        return others.softmax(1), others.logsumexp(1)


def against_the_rest(scores: Tensor, hard: bool = False) -> Tensor:
    """``s_c - log Σ_{k≠c} exp s_k`` (or ``s_c - max_{k≠c} s_k``) of each column, ``[N, K]`` to ``[N, K]``, stably."""
    k = scores.shape[1]
    top = torch.nn.functional.one_hot(scores.detach().argmax(1), k).bool()
    without_top = scores.masked_fill(top, -torch.inf)
    if hard:
        best, second = scores.amax(1, keepdim=True), without_top.amax(1, keepdim=True)
        return scores - torch.where(top, second, best)
    # The largest is in the sum of all columns but its own, where nothing can cancel; its own sum leaves it out.
    best = scores.detach().amax(1, keepdim=True)
    e = (scores - best).exp()
    rest = torch.where(top, torch.ones_like(e), e.sum(1, keepdim=True) - e)
    return scores - torch.where(top, without_top.logsumexp(1, keepdim=True), best + rest.log())


def _treat(engine: Propagation, call: Call) -> Tensor:
    (live,), head = call.live, call.args[1]
    rule = engine.composite.pooling(call) or head.rule
    call.rule_name = str(rule)
    kept = engine.keeper.keep(live if engine.differentiable else live.detach())
    with torch.set_grad_enabled(engine.differentiable):
        out = call.func(*call.args, **call.kwargs)

    def walk(c: Tensor) -> list[Tensor]:
        logits = kept.value
        scores, within = head.scores(logits), shares_within(rule, head, logits)
        factor = torch.zeros_like(logits)
        for k in c.detach().ne(0).any(0).nonzero().flatten().tolist():
            rows = c[:, k].detach().nonzero().flatten()
            target = Target(head, k, logits[rows], scores[rows], within[rows], c[rows, k])
            factor = factor.index_add(0, rows, target.factor(rule, call))
        if engine.ledger:
            call.book("bias", factor * head.log_weights)
        return [factor]

    result: Tensor = engine.reroute(call, out, [live], walk)
    return result


def shares_within(rule: Rule, head: LogOdds, logits: Tensor) -> Tensor:
    """The share of each representative in its cluster's pooling."""
    within = head.within(logits)
    if not isinstance(rule, WinnerTakesAll):
        return within
    return torch.cat([shares(rule, part, 1) for part in within.split(head.sizes, 1)], 1)


class Target:
    """The log-odds of one cluster, for the samples in which it is explained."""

    def __init__(self, head: LogOdds, c: int, logits: Tensor, scores: Tensor, within: Tensor, given: Tensor) -> None:
        self.head, self.c, self.z, self.within, self.given = head, c, logits + head.log_weights, within, given
        self.p, pooled = head.rivals(scores, c)
        self.odds = scores[:, c] - pooled
        self.own = head.group == c

    def factor(self, rule: Rule, call: Call) -> Tensor:
        """The factor of each log-weight, ``[n, M]``."""
        p = shares(rule, self.p, 1)
        weights = self.within * torch.where(self.own, self.own.to(p.dtype), p[:, self.head.group])
        signed = torch.where(self.own, weights, -weights)
        if isinstance(rule, Proportional):
            return self._pairs(weights, call)
        if isinstance(rule, WinnerTakesAll):  # a single linear unit: the best representative against the best rival
            unit = self.head.power * (signed * self.z).sum(1)
            return self.head.power * signed * (self.given * self.odds / _away_from_zero(unit, call, self)).unsqueeze(1)
        if call.engine.ledger:
            call.book("entropy", self.given * self._entropy())
        return self.head.power * signed * self.given.unsqueeze(1)

    def _entropy(self) -> Tensor:
        inside = torch.stack([entropy(q, 1) for q in self.within.split(self.head.sizes, 1)], 1) * self.head.power
        own = inside[:, self.c] - (self.p * inside).sum(1)
        return own - entropy(self.p, 1)

    def _pairs(self, weights: Tensor, call: Call) -> Tensor:
        """``R_ij = p_ij R`` for the linear units between all pairs, formed in blocks, each about its midpoint."""
        useful = (weights.detach() > _NEGLIGIBLE).any(0)
        mine, theirs = (self.own & useful).nonzero().flatten(), (~self.own & useful).nonzero().flatten()
        relevance = self.given * self.odds
        step = max(1, _PAIRS // max(1, len(mine) * len(weights)))
        ours, columns = torch.zeros_like(weights[:, mine]), []
        for part in theirs.split(step):
            unit = self.head.power * (self.z[:, mine, None] - self.z[:, None, part])
            share = weights[:, mine, None] * weights[:, None, part] * relevance[:, None, None]
            each = share / (unit + torch.copysign(torch.full_like(unit, _STABILIZER), unit))
            if call.engine.ledger:
                call.book("stabilizer", torch.copysign(torch.full_like(unit, _STABILIZER), unit) * each)
            ours = ours + each.sum(2)
            columns.append(each.sum(1))
        zeros = torch.zeros_like(weights)
        found = zeros.index_add(1, mine, ours)
        return self.head.power * (found - zeros.index_add(1, theirs, torch.cat(columns, 1)))


def _away_from_zero(unit: Tensor, call: Call, target: Target) -> Tensor:
    away = unit + torch.copysign(torch.full_like(unit, _STABILIZER), unit)
    if call.engine.ledger:
        call.book("stabilizer", target.given * target.odds * (away - unit) / away)
    return away


@operator(_treat)
def log_odds(logits: Tensor, head: LogOdds) -> Tensor:
    """Log-odds ``[N, K]`` of log-weights ``[N, M]``; see the module's text."""
    return against_the_rest(head.scores(logits), head.hard)
