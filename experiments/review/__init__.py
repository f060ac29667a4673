"""Samek, Montavon, Lapuschkin, Anders and Müller (2021): methods compared, unified, and put to use.

The weights of VGG-16 and ResNet-50 are not at hand. SqueezeNet 1.0, convolutions and pooling layers in a plain chain,
under the composite that the paper used, stands for VGG-16; MobileNetV2 and EfficientNet-Lite0, with residual blocks,
batch norm and strided convolutions, for ResNet-50. The photographs are one of each ImageNet class; those of Figure 5
are of the paper's own classes. Pixel-flipping, file sizes and heatmaps are the library's comparison of methods
(`benchmarks.evaluation`), whose results lie in `comparisons/` beside the steps: more photographs than a run needs are
taken in where they have been compared before.

Adience's faces are not at hand either: digits in their order stand for groups of age, and a planted bow for the smile
(`pretraining.py`). AudioMNIST is replaced by a set of 3,082 Azerbaijani digits, of which 12 men and 12 women are
drawn, as the paper does, with narrower networks of the same layers. MUTAG stands for the molecules of the paper's
reference [114]. The Breakout agent was trained by others; what the paper follows over the training of a player is
followed over the training of a network that learns to imitate that agent. Concrete is the paper's own data set.

At full scale 40 photographs a network are compared (and all that were compared before), 12 collages, three clips of
16 frames, 20,000 pieces of clothing, two pairs of pretrainings, four folds of speakers with three recordings a digit,
1,024 steps of imitation twice and ten folds of molecules: about ten minutes of one core. Times beside the verdicts
are wall-clock times, and long where others used the machine.
"""

from __future__ import annotations

from experiments.reproduction import Reproduction
from experiments.review import (
    clusters,
    concrete,
    flipping,
    gender,
    heatmaps,
    learning,
    molecules,
    pretraining,
    propositions,
    shattered,
    strategies,
)

TITLE = "Explaining deep neural networks and beyond"
SOURCE = (
    "W. Samek, G. Montavon, S. Lapuschkin, C. J. Anders, K.-R. Müller: Explaining Deep Neural Networks and Beyond: A "
    "Review of Methods and Applications. Proceedings of the IEEE 109(3), 2021 (arXiv:2003.07631, Toward Interpretable "
    "Machine Learning: Transparent Deep Neural Networks and Beyond)"
)


def reproduce(run: Reproduction) -> None:
    """All parts in the paper's order."""
    for part in (
        concrete, shattered, heatmaps, flipping, propositions, clusters, strategies, pretraining, gender, learning,
        molecules,
    ):  # fmt: skip
        part.reproduce(run)
