"""Backward optimization: what a network takes for the best earthquake and the best noise, and how it would mend one.

Figures 5 and 6 of the paper.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from scipy.signal import find_peaks, resample_poly
from torch import Tensor, nn

import headwater as hw
from experiments.earthquake.data import ONSET, Source
from experiments.earthquake.records import FINE
from experiments.earthquake.series import above, smoothed, spectrum, summary
from experiments.earthquake.subjects import Judge, Sets, Subject
from experiments.reproduction import Reproduction
from headwater.evaluate import correlation

RATE = 0.1  # of ascent, with momentum 0.9
FAST = 5.0  # hertz: half of what windows at 20 Hz can hold
REAL = slice(0, 10)  # the earthquakes among the samples


def search(subject: Subject, starts: Tensor, signs: Tensor, steps: int, progress: bool | None = None) -> dict[str, Any]:
    """Ascend the log-likelihood of an earthquake (sign 1) or of noise (sign -1) from each start, at once.

    The paper descends on the loss that the network was trained with; that is the same. Its optimizer is not said: this
    one is the network's own, gradient ascent with momentum 0.9, at a rate of 0.1.
    """
    found = hw.optimize.maximize(
        subject.model, lambda score: F.logsigmoid(signs * score), start=starts, steps=steps, rate=RATE, optimizer="sgd",
        patience=steps, progress=progress,
    )  # fmt: skip
    return {"x": found.x, "start": found.start, "curve": found.curve, "likelihood": found.score.exp()}


def from_zero(subject: Subject, source: Source, sets: Sets, steps: int) -> dict[str, Any]:
    """The optimal earthquake and the optimal noise from zeros, and sample B made more of an earthquake."""
    b = subject.inputs(source, sets.samples[1:2])
    return search(subject, torch.cat([torch.zeros_like(b).repeat(2, 1, 1), b]), torch.tensor([1.0, -1.0, 1.0]), steps)


def from_others(subject: Subject, source: Source, sets: Sets, steps: int, count: int) -> dict[str, Any]:
    """Optimal earthquakes from ``count`` random starts as strong as real windows, and from the ten real samples."""
    real = subject.inputs(source, sets.samples[REAL])
    random = torch.randn(count, *real.shape[1:]) * real.std()
    return search(subject, torch.cat([random, real]), torch.ones(count + len(real)), steps)


def study(
    subject: Subject, zero: dict[str, Tensor], others: dict[str, Tensor], train: Tensor, picker: nn.Module
) -> dict[str, Any]:
    """All numbers of this part; see `judge`.

    Args:
        subject: the network of ``others``, the first of those of ``zero``.
        zero: of every network one row: ``x, start [M, 3, 3, T]``, ``curve [M, steps + 1, 3]``, ``likelihood [M, 3]``.
        others: what `from_others` found.
        train: earthquakes that were trained on, as inputs ``[N, 3, T]``.
        picker: the published picker, which is asked for arrivals in the optimum.
    """
    quake, noise = zero["x"][:, 0], zero["x"][:, 1]
    count = len(others["x"]) - 10
    random, real, start = others["x"][:count], others["x"][count:], others["start"][count:]
    change = real - start
    mended = zero["x"][:, 2] - zero["start"][:, 2]
    loss = -zero["curve"][:, :, 0]
    steps = torch.arange(change.shape[-1]) / subject.rate
    return {
        "likelihood": zero["likelihood"], "loss": loss, "random_likelihood": others["likelihood"][:count],
        "real_before": others["curve"][0, count:].exp(), "real_after": others["likelihood"][count:],
        "rises": (loss[:, 1:6].amax(1) > loss[:, 0]).double(),
        "quake_peak": quake.abs().amax(-1), "noise_peak": noise.abs().amax((1, 2)), "real_peak": train.abs().amax((1,
        2)),
        "bursts": torch.tensor([_bursts(x, subject.rate) for x in quake]),
        "together": torch.stack([_together(x, subject.rate) for x in quake]),
        "alike": _between(quake),
        "random_alike": _between(random),
        "nearest": torch.stack([correlation(train, one.expand_as(train)).abs().amax() for one in random]),
        "arrivals": _arrivals(picker, quake, subject.rate).double(), "real_arrivals": _arrivals(picker, start,
        subject.rate).double(),
        "fast": above(quake, subject.rate, FAST), "fast_train": above(train, subject.rate, FAST),
        "small": (_log_ratio(start, real).abs() < 0.25).double().flatten(1).mean(1),
        "early": _strength(change, steps < ONSET), "after": _strength(change, (steps >= ONSET) & (steps < 2 * ONSET)),
        "rest": _strength(change, steps >= 2 * ONSET),
        "slow_change": _change(start, real, subject.rate, 0.0, FAST), "fast_change": _change(start, real, subject.rate,
        FAST, 1e9),
        "mended_alike": _between(mended),
        "spectrum": spectrum(quake).mean((0, 1)), "train_spectrum": spectrum(train).mean((0, 1)),
        "quake": quake, "noise": noise, "random": random, "real": real, "start": start,
    }  # fmt: skip


def _between(x: Tensor) -> Tensor:
    """The correlation of every two rows, none where there is one."""
    return torch.corrcoef(x.flatten(1)).reshape(len(x), len(x))[*torch.triu_indices(len(x), len(x), 1)]


def _bursts(x: Tensor, rate: int) -> int:
    """Separate maxima of the amplitude, at least half as high as the highest and 1 s apart."""
    envelope = smoothed(x.abs().sum(0), rate).numpy()
    return len(find_peaks(envelope, height=envelope.max() / 2, distance=rate)[0])


def _together(x: Tensor, rate: int) -> Tensor:
    """The mean correlation of the components' amplitudes over time."""
    return torch.corrcoef(smoothed(x.abs(), rate))[*torch.triu_indices(3, 3, 1)].mean()


def _arrivals(picker: nn.Module, x: Tensor, rate: int) -> Tensor:
    """Whether the published picker is sure of a P and of a later S in windows, ``[N]``."""
    fine = torch.from_numpy(resample_poly(x.numpy(), FINE // rate, 1, axis=-1)) if rate != FINE else x
    deviation = fine.std(-1, keepdim=True)
    with torch.no_grad():
        likely = picker(fine / torch.where(deviation > 0, deviation, 1.0)).softmax(1)[:, 1:]
    sure, place = likely.max(-1)
    return (sure > 0.5).all(1) & (place[:, 1] > place[:, 0])


def _log_ratio(before: Tensor, after: Tensor) -> Tensor:
    """The paper's ratio of amplitudes less 2, so that 0 means unchanged: its base is 10."""
    return torch.log10(before.abs().clamp(min=1e-9) / after.abs().clamp(min=1e-9))


def _strength(change: Tensor, where: Tensor) -> Tensor:
    """The root mean square of a part of the change in units of the whole's, ``[N]``."""
    return change[..., where].square().mean((1, 2)).sqrt() / change.square().mean((1, 2)).sqrt()


def _change(before: Tensor, after: Tensor, rate: int, low: float, high: float) -> Tensor:
    """The mean magnitude of the log-ratio of spectra over a band, ``[N]``."""
    frequencies = torch.fft.rfftfreq(before.shape[-1], 1 / rate)
    band = (frequencies > low) & (frequencies <= high)
    return _log_ratio(spectrum(before), spectrum(after))[..., band].abs().mean((1, 2))


def judge(run: Reproduction, subject: Subject, found: dict[str, Any]) -> None:
    """Verdicts on the claims of Section 3.2."""
    say, several = Judge(run, subject), len(found["likelihood"]) > 1
    count, steps = len(found["likelihood"]), found["loss"].shape[1] - 1
    sure = found["likelihood"][:, 0]
    say(
        "optimum-converges", "Section 3.2, Fig. S15", "From zeros every network reaches an input that it is sure is "
        "an earthquake.",
        "10 of 10, 5000 iterations", f"{int((sure > 0.99).sum())} of {count} above 0.99 after {steps} "
        f"iterations (lowest {sure.min():.4f})", bool((sure > 0.99).all()),
    )  # fmt: skip
    say(
        "optimum-rises", "Section 3.2, Fig. S15", "The loss often rises in the first iterations before it falls.",
        "often, 2 to 3 iterations", f"{int(found['rises'].sum())} of {count}", bool(found["rises"].mean() >= 0.5),
    )  # fmt: skip
    if several:
        alike = found["alike"]
        say(
            "optimum-varies", "Section 3.2, Fig. 5A", "Different trainings have different optimal inputs.", "by eye",
            f"r of two trainings {summary(alike)}", bool(alike.mean() < 0.5), "holds below 0.5",
        )  # fmt: skip
    say(
        "optimum-together", "Section 3.2, Fig. 5A", "Amplitudes of the optimal input rise on all three components at "
        "once.",
        "by eye", f"r of the components' amplitudes {summary(found['together'])}",
        bool(found["together"].mean() > 0.5), "holds above 0.5",
    )  # fmt: skip
    peaks, limit = found["quake_peak"], float(found["real_peak"].mean())
    say(
        "optimum-bounded", "Section 3.2, Fig. 5A", "Most components stay within the amplitude of real windows.",
        "25 of 30 within 1", f"{int((peaks <= limit).sum())} of {peaks.numel()} within {limit:.2g}",
        bool((peaks <= limit).double().mean() > 0.5), "holds for more than half",
    )  # fmt: skip
    say(
        "optimum-several", "Section 3.2, Fig. 5A", "The optimal input looks as if there were several earthquakes in "
        "it.",
        "by eye", f"bursts: {', '.join(str(int(n)) for n in found['bursts'])}",
        bool(found["bursts"].double().median() >= 2),
    )  # fmt: skip
    say(
        "optimum-no-phases", "Section 3.2, Fig. 5A", "P and S cannot be told in the optimal input: no specialist "
        "would take it for an earthquake.", "by eye", "the published picker is sure of P and a later S in "
        f"{int(found['arrivals'].sum())} of {count} (in {int(found['real_arrivals'].sum())} of "
        f"{len(found['real_arrivals'])} real windows)",
        bool(found["arrivals"].mean() < 0.5),
    )  # fmt: skip
    say(
        "optimum-fast", "Section 3.2, Fig. 5B", "Optimal inputs have more of the high frequencies than real "
        "earthquakes.",
        "by eye", f"power above {FAST:g} Hz: {found['fast'].mean():.0%} against {found['fast_train'].mean():.0%}",
        bool(found["fast"].mean() > found["fast_train"].mean()),
    )  # fmt: skip
    _judge_noise_and_random(say, found)
    _judge_real(say, found)


def _judge_noise_and_random(say: Judge, found: dict[str, Any]) -> None:
    quake, noise = found["quake_peak"].amax(1), found["noise_peak"]
    say(
        "optimum-noise", "Section 3.2, Fig. S16", "The optimal noise has very low amplitudes.", "by eye",
        f"peak {noise.mean():.2g} against {quake.mean():.2g} of the optimal earthquake and "
        f"{found['real_peak'].mean():.2g} of real windows; {int((noise < quake).sum())} of {len(noise)} lower",
        bool(noise.mean() < 0.2 * found["real_peak"].mean()),
        "holds below a fifth of real windows",
    )  # fmt: skip
    say(
        "optimum-random", "Section 2.5.2", "Random starts give many optimal inputs that hardly ever resemble real "
        "windows.",
        "stated", f"{int((found['random_likelihood'] > 0.99).sum())} of {len(found['random_likelihood'])} above 0.99; "
        f"r of two {summary(found['random_alike'])}; |r| with the nearest training window {summary(found['nearest'])}",
        bool(found["nearest"].mean() < 0.5), "holds where |r| stays below 0.5",
    )  # fmt: skip


def _judge_real(say: Judge, found: dict[str, Any]) -> None:
    before, after = found["real_before"], found["real_after"]
    say(
        "mended-small", "Section 3.2, Fig. 6", "A real earthquake, already detected, is changed by less than a "
        "quarter of an order of magnitude for the most part.",
        "mostly < 0.25", f"{found['small'].mean():.0%} of the steps "
        f"(likelihood {before.mean():.3f} to {after.mean():.4f})", bool(found["small"].mean() > 0.5),
    )  # fmt: skip
    early, later, rest = (float(found[name].mean()) for name in ("early", "after", "rest"))
    say(
        "mended-early", "Section 3.2, Fig. 6", "Changes are strongest in the first 5 s, before P, and absent in the "
        "next 5 s.",
        "by eye", f"strength (1: evenly spread): 0 to 5 s {early:.2f}, 5 to 10 s {later:.2f}, later {rest:.2f}",
        early > 1 and early > later, "holds where the first 5 s have more than an even share, and more than the next "
        "5 s",
    )  # fmt: skip
    say(
        "mended-fast", "Section 3.2, Fig. 6", "Changes are of high frequencies.", "by eye",
        f"mean |log-ratio| of spectra: above {FAST:g} Hz {found['fast_change'].mean():.3f}, below "
        f"{found['slow_change'].mean():.3f}",
        bool(found["fast_change"].mean() > found["slow_change"].mean()),
    )  # fmt: skip
    if len(found["mended_alike"]):
        say(
            "mended-alike", "Section 3.2, Fig. S19", "Different trainings change sample B alike.", "by eye",
            f"r of two trainings' changes {summary(found['mended_alike'])}", bool(found["mended_alike"].mean() > 0.5),
            "holds above 0.5",
        )  # fmt: skip
