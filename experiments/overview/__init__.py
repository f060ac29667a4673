"""Sensitivity analysis beside LRP on photographs, texts and videos.

GoogLeNet's weights, ImageNet's validation set, 20 Newsgroups and HMDB51 are not at hand. In their place stand
SqueezeNet (like GoogLeNet a plain chain of convolutions without batch norm), MobileNetV2 and EfficientNet-Lite0 on
photographs of ImageNet's classes, the BBC's news, and clips made for the purpose, of which it is known where and when
something happens.
"""

from __future__ import annotations

from experiments.overview import images, texts, theory, videos
from experiments.reproduction import Reproduction

TITLE = "Explaining images, texts and videos"
SOURCE = (
    "W. Samek, T. Wiegand, K.-R. Müller, Explainable artificial intelligence: understanding, visualizing and "
    "interpreting deep learning models, arXiv:1708.08296, 2017."
)


def reproduce(run: Reproduction) -> None:
    """The three experiments of Section 5, and the conservation that Section 3 promises."""
    theory.report(run)
    images.report(run)
    texts.report(run)
    videos.report(run)
