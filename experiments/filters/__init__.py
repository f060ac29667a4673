"""Four networks learn MNIST in steps of four digits, and Mean Power of their relevance is followed through training.

The paper prints neither the layers nor the rate, nor which threshold Mean Power took, and its first pages are missing
from the copy at hand. Here the layers are sized to its numbers of parameters, Adam runs at 1e-4, and every threshold is
reported. Relevance is LRP-ε with z^B at the pixels. At full scale S1 trains for the paper's two epochs, the others for
as long as an hour allows: the table of the networks says how long.
"""

from __future__ import annotations

from experiments.filters import bounds, data, heatmaps, masks, networks, planted, training, trends
from experiments.reproduction import Reproduction

TITLE = "Filters on relevance during propagation"
SOURCE = (
    "E. Tjoa and C. Guan, denoising of explanations by filters on relevance during propagation (clamp, "
    "fraction-pass, fractional amplifier), 2020."
)


def reproduce(run: Reproduction) -> None:
    """Train, follow Mean Power, draw the filtered heatmaps, and measure errors against what is known."""
    digits = data.digits(run)
    histories = {name: training.history(run, subject, digits) for name, subject in networks.SUBJECTS.items()}
    again = training.history(run, networks.SUBJECTS["S1"], digits, again=1)
    trends.report(run, digits, histories, again)
    heatmaps.report(run, digits, histories)
    masks.report(run, digits, histories)
    planted.report(run, digits)
    bounds.report(run, digits, histories["S1"])
