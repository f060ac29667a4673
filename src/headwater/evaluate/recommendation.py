"""From a comparison to advice that states its reasons and its limits."""

from __future__ import annotations

from headwater.evaluate.comparison import Comparison, Entry
from headwater.evaluate.drawing import CHANCE
from headwater.evaluate.statistics import bootstrap_interval

ALIKE = 0.5  # rank correlation with the map of a random model from which on a map says little of what was learnt
FEW = 20  # samples below which the intervals themselves are rough
FEWEST = 5  # and below which they say nothing


def recommend(comparison: Comparison) -> str:
    """Which method to use on this model and these samples, why, and what the answer rests on.

    A method qualifies if its flipping curve lies below the random one (95 % paired bootstrap over samples) and its map
    changes when the model's parameters are randomized. Of those that qualify, the lowest area leads; methods whose
    difference to it may be chance are named beside it, with the fastest and the simplest of them.
    """
    areas = {name: flipping.areas for name, flipping in comparison.curves.items()}
    served = [e for e in comparison.entries if not e.error and e.name != CHANCE]
    lines: list[str] = []
    below = [e for e in served if float(bootstrap_interval(areas[e.name] - areas[CHANCE])[1]) < 0]
    rest = [e.name for e in served if e not in below]
    blind = [e for e in below if (e.mean("randomized") or 0.0) > ALIKE]
    fit = [e for e in below if e not in blind]
    if not fit:
        lines.append("No method can be recommended on these samples.")
    else:
        lines += _lead(comparison, fit)
    if rest:
        lines.append(f"Not below a random order with 95 % confidence: {', '.join(rest)}.")
    lines += [
        f"{e.name} is left out: its map correlates by {e.mean('randomized'):.2f} with that of a model with random "
        "parameters, so it says little of what was learnt."
        for e in blind
    ]
    lines.append(_limits(comparison))
    return " ".join(lines)


def _lead(comparison: Comparison, fit: list[Entry]) -> list[str]:
    curves = comparison.curves
    ordered = sorted(fit, key=lambda e: curves[e.name].area)
    best = ordered[0]
    few = len(comparison.clean) < FEWEST
    lead = {e.name: bootstrap_interval(curves[e.name].areas - curves[best.name].areas)[0] for e in ordered[1:]}
    tied = [e for e in ordered[1:] if few or float(lead[e.name]) <= 0]
    chance = curves[CHANCE].area
    lines = [
        f"Use {best.name}: removing what it finds relevant takes the {comparison.settings['output']} down fastest "
        f"(area {curves[best.name].area:.3g} beside {chance:.3g} of a random order)."
    ]
    if tied:
        lines.append(f"The lead over {', '.join(e.name for e in tied)} may be chance.")
        among = [best, *tied]
        timed = [e for e in among if e.forwards is not None]
        if timed:
            fastest = min(timed, key=lambda e: e.forwards or 0.0)
            lines.append(f"Of these {fastest.name} is the fastest ({fastest.forwards:.3g} forward passes).")
        measure = "file_size" if all(e.mean("file_size") is not None for e in among) else "effective_features"
        simplest = min(among, key=lambda e: e.mean(measure) or 0.0)
        lines.append(f"{simplest.name} has the simplest map.")
    gap = best.mean("gap")
    if gap is not None and gap > 0.5:
        lines.append(
            f"Its relevance misses the output by {gap:.0%} on average: read its signs and ranks, not its sums."
        )
    return lines


def _limits(comparison: Comparison) -> str:
    n, settings = len(comparison.clean), comparison.settings
    few = f" {n} {'sample is' if n == 1 else 'samples are'} few: add some before you rely on it." if n < FEW else ""
    return (
        f"This rests on {n} {'sample' if n == 1 else 'samples'}, one target each, and on {settings['imputer']} in the "
        f"place of what is removed: another imputer or another model may order the methods differently.{few}"
    )
