"""Layer-wise relevance: where the evidence for an earthquake lies, under four rules.

Figures 7 and 8 of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

import headwater as hw
from experiments.earthquake.data import SECONDS, Source, Windows
from experiments.earthquake.series import above, auc, between, smoothed, summary
from experiments.earthquake.subjects import APART, Judge, Sets, Subject
from experiments.reproduction import Reproduction
from headwater.analyze import spread
from headwater.evaluate import correlation, mass_accuracy

ONE = "its score is that of one arrival, the likeliest, so that the others cannot have relevance"
EPSILON = 1e-6  # as in Section 3.3 of the paper
RULES = {
    "β 0": hw.rules.AlphaBeta(1.0, 0.0, bias=False),
    "β 0.5": hw.rules.AlphaBeta(1.5, 0.5, bias=False),
    "β 1": hw.rules.AlphaBeta(2.0, 1.0, bias=False),
    "ε": hw.rules.Epsilon(EPSILON),
}


def explained(subject: Subject, x: Tensor, rule: str) -> Tensor:
    """Relevance of the score before the sigmoid, ``[N, 3, T]``; Eq. 4 has no biases."""
    composite = hw.Composite({"conv": RULES[rule], "linear": RULES[rule]})
    return hw.explain(subject.model, x, composite=composite, batch_size=64, progress=False).relevance


def study(subject: Subject, others: Sequence[Subject], source: Source, sets: Sets) -> dict[str, Any]:
    """All numbers of this part; see `judge`."""
    events = sets.evaluation.positive
    x, noise = subject.inputs(source, events), subject.inputs(source, sets.evaluation.negative)
    near, far = sets.onset.positive, sets.far
    fixed = torch.cat([subject.inputs(source, near), subject.inputs(source, far)])
    samples = subject.inputs(source, sets.samples)
    found: dict[str, Any] = {
        "rules": {rule: _of_events(subject, events, x, explained(subject, x, rule)) for rule in RULES},
        "sigma": {rule: _sigma(subject, explained(subject, fixed, rule)) for rule in RULES},
        "noise_sigma": _sigma(subject, quiet := explained(subject, noise, "β 0"), "absolute"),
        "event_sigma": _sigma(subject, loud := explained(subject, x, "β 0"), "absolute"),
        "noise_sum": quiet.sum((1, 2)), "event_sum": loud.sum((1, 2)),
        "noise_score": _scores(subject, noise), "event_score": _scores(subject, x),
        "gap": torch.cat([near.s - near.p, far.s - far.p]), "distance": torch.cat([near.distance, far.distance]),
        "same": {rule: _same(subject, loud, explained(subject, x, rule)) for rule in list(RULES)[1:]},
        "samples": {rule: explained(subject, samples, rule) for rule in RULES}, "waves": samples,
        "two": _of_two(subject, source, sets),
    }  # fmt: skip
    if others:
        found["stable"] = {rule: _stability([subject, *others], samples[:10], rule) for rule in RULES}
        found["trainings_b"] = torch.stack([explained(other, samples[1:2], "β 0")[0] for other in [subject, *others]])
    return found


def _scores(subject: Subject, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([subject.model(part) for part in x.split(64)])


def _sigma(subject: Subject, relevance: Tensor, part: Any = "positive") -> Tensor:
    return torch.from_numpy(spread(relevance, axis=-1, part=part, rate=subject.rate))


def _same(subject: Subject, a: Tensor, b: Tensor) -> Tensor:
    """The correlation of two rules' positive relevance over time, averaged over half a second."""
    first, second = (smoothed(r.clamp(min=0).sum(1), subject.rate // 2) for r in (a, b))
    return correlation(first, second)


def _of_events(subject: Subject, events: Windows, x: Tensor, relevance: Tensor) -> dict[str, Tensor]:
    """Where one rule's relevance lies in earthquakes' windows; densities are in units of the window's mean."""
    length, rate = relevance.shape[-1], subject.rate
    end = events.s + torch.maximum(events.s - events.p, torch.tensor(2.0))

    def within(low: Tensor, high: Tensor) -> Tensor:
        return between(low, high, length, rate)

    inside = within(events.p - 0.5, end)
    parts = {
        "before": within(torch.zeros_like(events.p), events.p - 0.5), "p": within(events.p - 0.25, events.p + 0.75),
        "s": within(events.s - 0.25, events.s + 0.75), "coda": within(events.s + 2.0, torch.full_like(events.p,
        SECONDS)),
    }  # fmt: skip
    total = relevance.sum(1)
    smooth = smoothed(total.clamp(min=0), rate // 4)
    peak = smooth.argmax(1) / rate
    weights = total.clamp(min=0) / total.clamp(min=0).sum(1, keepdim=True)
    gap = torch.minimum((peak - events.p).abs(), (peak - events.s).abs())
    negative = (-total).clamp(min=0)
    found = {
        "mass": mass_accuracy(relevance, inside), "area": inside.double().mean(1), "peak_gap": gap,
        "centre": weights @ (torch.arange(length) / rate), "middle": (events.p + events.s) / 2,
        "fast": above(relevance, rate, 5.0), "fast_wave": above(x.abs(), rate, 5.0), "components": _components(x,
        relevance,
        rate),
        "negative": negative.sum(1) / total.abs().sum(1),
    }  # fmt: skip
    for name, where in parts.items():
        found[f"density_{name}"] = _density(total.clamp(min=0), where)
        found[f"negative_{name}"] = (negative * where).sum(1) / (total.abs() * where).sum(1)
    return found


def _density(weights: Tensor, where: Tensor) -> Tensor:
    return (weights * where).sum(1) / where.sum(1) / weights.mean(1)


def _components(x: Tensor, relevance: Tensor, rate: int) -> Tensor:
    """The mean correlation of the three components' relevance over time, of windows that have all three."""
    live = x.abs().amax(-1).gt(0).all(1)
    smooth = smoothed(relevance[live].clamp(min=0), rate)
    return torch.stack([correlation(smooth[:, i], smooth[:, j]) for i, j in combinations(range(3), 2)]).mean(0)


def _stability(subjects: Sequence[Subject], x: Tensor, rule: str) -> Tensor:
    """The correlation of two trainings' relevance of a sample, averaged over all pairs of trainings, ``[N]``."""
    maps = [explained(one, x, rule) for one in subjects]
    return torch.stack([correlation(a, b) for a, b in combinations(maps, 2)]).mean(0)


def _of_two(subject: Subject, source: Source, sets: Sets) -> dict[str, Any]:
    """Relevance of windows with two events: densities about each, in units of the window's mean."""
    first, second = sets.pairs
    x = subject.pairs(source, first, second)
    relevance = explained(subject, x, "β 0")
    total = relevance.sum(1).clamp(min=0)
    length = total.shape[-1]
    places = [
        between(one.p + late - 0.5, one.s + late + 2.0, length, subject.rate)
        for one, late in ((first, 0.0), (second, APART))
    ]
    whole = torch.stack([one.x.abs().amax(-1).gt(0).all(1) for one in (first, second)]).all(0)
    shown = int(whole.long().argmax())  # the first window of two events with three components each
    return {
        "first": _density(total, places[0]), "second": _density(total, places[1]), "score": _scores(subject, x),
        "wave": x[shown], "relevance": relevance[shown], "shown": shown,
    }  # fmt: skip


def judge(run: Reproduction, subject: Subject, found: dict[str, Any]) -> None:
    """Verdicts on the claims of Section 3.3."""
    say, plain = Judge(run, subject), found["rules"]["β 0"]
    lift = (plain["mass"] / plain["area"]).nanmedian()
    say(
        "relevance-follows", "Section 3.3, Fig. 7", "High relevance lies where the earthquake is in the window, "
        "though training never said where.",
        "by eye", f"{plain['mass'].nanmean():.0%} of the positive relevance (β 0) in the event's "
        f"{plain['area'].mean():.0%} of the window (median lift {lift:.1f}); its centre follows the event's, r = "
        f"{_r(plain['centre'], plain['middle']):.2f}", bool(lift > 1.5), "holds with a median lift above 1.5",
    )  # fmt: skip
    near = float((plain["peak_gap"] < 1.0).double().mean())
    p, s, coda, before = (float(plain[f"density_{name}"].nanmean()) for name in ("p", "s", "coda", "before"))
    say(
        "relevance-peaks", "Section 3.3, Fig. 7", "Its peaks are at the arrivals of P and S.", "by eye",
        f"the peak is within 1 s of P or S in {near:.0%} of the windows", near > 0.5, "holds in more than half",
    )  # fmt: skip
    say(
        "relevance-coda", "Section 4", "P and S have more of it than the coda.", "by eye",
        f"density (1: evenly spread): P {p:.2f}, S {s:.2f}, coda {coda:.2f}, before P {before:.2f}", min(p, s) > coda,
    )  # fmt: skip
    say(
        "relevance-components", "Section 3.3, Fig. 7", "High relevance comes at the same times on the three "
        "components.",
        "by eye", f"r of two components, averaged over 1 s: {summary(plain['components'])}",
        bool(plain["components"].nanmean() > 0.5), "holds above 0.5",
    )  # fmt: skip
    say(
        "relevance-fast", "Section 3.3, Fig. 7", "Relevance has a high-frequency pattern.", "by eye",
        f"power above 5 Hz: relevance {plain['fast'].nanmean():.0%}, the waveform's magnitude "
        f"{plain['fast_wave'].mean():.0%}",
        bool(plain["fast"].nanmean() > plain["fast_wave"].mean()), "holds where it has a larger share than the "
        "waveform",
    )  # fmt: skip
    _judge_spread(say, found)
    _judge_rules(say, found)
    two = found["two"]
    say(
        "relevance-two", "Section 3.3, Fig. S20", "Of two events in a window both are followed.", "by eye",
        f"density about the first {two['first'].nanmean():.2f}, about the second {two['second'].nanmean():.2f}; both "
        f"above 1 in {((two['first'] > 1) & (two['second'] > 1)).double().mean():.0%} of {len(two['first'])} windows",
        bool(((two["first"] > 1) & (two["second"] > 1)).double().mean() > 0.5), picker=ONE,
    )  # fmt: skip
    say(
        "relevance-earlier", "Section 3.3, Fig. S20", "The earlier of two events has more relevance.", "by eye",
        f"in {(two['first'] > two['second']).double().mean():.0%} of the windows (each event is first as often as "
        "second)",
        bool((two["first"] > two["second"]).double().mean() > 0.5), picker=ONE,
    )  # fmt: skip


def _judge_spread(say: Judge, found: dict[str, Any]) -> None:
    lost = ((found["event_sum"] - found["event_score"]) / found["event_score"]).abs()
    say(
        "conservation", "Section 2.5.3", "Relevance is conserved from the output to the input (Eq. 4).",
        "by definition",
        f"median |Σ R - score| / |score| of earthquakes {lost.median():.1e}, largest {lost.max():.1e}",
        bool(lost.median() < 1e-3), "it is lost where a neuron has no positive contribution at all, as Eq. 4 then "
        "has none to give it to",
    )  # fmt: skip
    sigma, gap, distance = found["sigma"]["β 0"], found["gap"], found["distance"]
    known = distance.isfinite()
    all_, far = spearmanr(gap, sigma, nan_policy="omit"), spearmanr(distance[known], sigma[known], nan_policy="omit")
    near = spearmanr(gap[~known], sigma[~known], nan_policy="omit").statistic
    say(
        "sigma-distance", "Section 3.3, Fig. 8A", "Relevance (β 0) of more distant events is spread wider.", "by eye",
        f"Spearman's ρ of σ with S-P {all_.statistic:.2f} (p = {all_.pvalue:.1g}, {len(gap)} events; the "
        f"{int((~known).sum())} near ones alone {near:.2f}); with the distance of {int(known.sum())} far events "
        f"{far.statistic:.2f} (p = {far.pvalue:.1g})",
        min(all_.statistic, far.statistic) > 0 and max(all_.pvalue, far.pvalue) < 0.05,
        "S-P stands in for the distance where that is not known; holds where both rise with p < 0.05", ONE,
    )  # fmt: skip
    event, noise = found["event_sigma"], found["noise_sigma"]
    say(
        "sigma-class", "Section 3.3, Fig. 8B", "Relevance (β 0) is spread wider for noise than for earthquakes.",
        "by eye",
        f"σ {summary(noise)} s against {summary(event)} s (AUC "
        f"{auc(noise[noise.isfinite()], event[event.isfinite()]):.2f}; evenly spread: {SECONDS / 12**0.5:.2f} s)",
        bool(noise.nanmean() > event.nanmean()),
    )  # fmt: skip
    rejected = found["noise_score"] < 0
    negative = (found["noise_sum"][rejected] < 0).double().mean()
    accepted = found["event_score"] > 0
    positive = (found["event_sum"][accepted] > 0).double().mean()
    say(
        "relevance-sign", "Section 3.3", "Relevance (β 0) of detected earthquakes is positive, of rejected noise "
        "negative.",
        "stated", f"{positive:.0%} and {negative:.0%}", float(min(positive, negative)) > 0.95,
        "the score before the sigmoid is explained",
    )  # fmt: skip


def _judge_rules(say: Judge, found: dict[str, Any]) -> None:
    sigma = {rule: float(value.nanmean()) for rule, value in found["sigma"].items()}
    say(
        "sigma-rules", "Section 3.3", "Under β 0.5 and β 1 positive relevance stays more local than under β 0.",
        "stated",
        ", ".join(f"{rule}: σ {value:.2f} s" for rule, value in sigma.items()),
        max(sigma["β 0.5"], sigma["β 1"]) < sigma["β 0"],
    )  # fmt: skip
    rules = found["rules"]
    at = {rule: float(((r := rules[rule])["density_p"] + r["density_s"]).nanmean() / 2) for rule in ("β 0.5", "β 1")}
    say(
        "half-at-arrivals", "Section 3.3, Fig. S21", "Under β 0.5 positive relevance is at P and S, less so under β "
        "1.", "by eye",
        f"density at P and S: β 0.5 {at['β 0.5']:.2f}, β 1 {at['β 1']:.2f}",
        at["β 0.5"] > 1.5 and at["β 0.5"] > at["β 1"],
        "holds above 1.5 and above that of β 1",
    )  # fmt: skip
    told, holds = [], True
    for rule in ("β 0.5", "β 1"):
        share = {name: float(rules[rule][f"negative_{name}"].nanmean()) for name in ("before", "p", "s", "coda")}
        told.append(
            f"{rule}: before P {share['before']:.0%}, P {share['p']:.0%}, S {share['s']:.0%}, coda {share['coda']:.0%}"
        )
        holds &= max(share["p"], share["s"]) < min(0.5, share["before"], share["coda"])
    say(
        "negative-elsewhere", "Section 3.3, Figs. S21, S22", "Negative relevance is rarer and weaker at P and S than "
        "before P and in the coda.", "by eye", "share of |R| that is negative; " + "; ".join(told), holds,
    )  # fmt: skip
    say(
        "epsilon-agrees", "Section 3.3, Fig. S27", "LRP-ε finds the same places as β 0.", "by eye",
        f"r over time {summary(found['same']['ε'])}; {rules['ε']['mass'].nanmean():.0%} of its positive relevance in "
        f"the event's {rules['ε']['area'].mean():.0%}", bool(found["same"]["ε"].nanmean() > 0.5), "holds above r = 0.5",
    )  # fmt: skip
    half, one = (float(found["same"][rule].nanmean()) for rule in ("β 0.5", "β 1"))
    say(
        "rules-consistent", "Section 3.3, Figs. 7, S21, S22", "β 0 and β 0.5 find the same places, β 1 less so.",
        "by eye",
        f"r over time with β 0: β 0.5 {half:.2f}, β 1 {one:.2f}", half > 0.5 and half > one,
        "holds above 0.5 and above that of β 1",
    )  # fmt: skip
    if "stable" in found:
        stable = {rule: (float(value[1]), float(value.mean())) for rule, value in found["stable"].items()}
        say(
            "rules-stable", "Section 3.3, Figs. S23 to S25", "Ten trainings agree on sample B under β 0 and β 0.5, "
            "and less under β 1.", "by eye", "r of two trainings (B; mean of A to J): "
            + ", ".join(f"{rule} {b:.2f}; {mean:.2f}" for rule, (b, mean) in stable.items()),
            stable["β 1"][1] < min(stable["β 0"][1], stable["β 0.5"][1]) and stable["β 0"][1] > 0.5,
            "holds where β 0 exceeds 0.5 and β 1 is below both others",
        )  # fmt: skip


def _r(a: Tensor, b: Tensor) -> float:
    known = a.isfinite() & b.isfinite()
    return float(torch.corrcoef(torch.stack([a[known].double(), b[known].double()]))[0, 1])
