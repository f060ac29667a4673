"""Concepts: what hidden layers know, and how a decision uses it."""

from headwater.concepts.channels import ChannelRelevance, ReferenceSamples, channel_relevance, reference_samples
from headwater.concepts.tcav import ConceptScore, Tcav, tcav
from headwater.method import REVIEW, Method

__all__ = [
    "ChannelRelevance",
    "ConceptScore",
    "ReferenceSamples",
    "Tcav",
    "channel_relevance",
    "reference_samples",
    "tcav",
]

ROWS = (
    Method(
        "tcav", "TCAV", "propagate", f"Kim et al.: Testing with Concept Activation Vectors, ICML 2018; {REVIEW}",
        "examples of a concept", "derivatives along a direction in a layer's activations", None,
        call="hw.concepts.tcav",
    ),
    Method(
        "layer_relevance", "LR", "propagate", f"Achtibat et al.: Concept Relevance Propagation, 2023; {REVIEW}",
        "a named layer", "one walk back that stops at a layer, pooled by channel or group", None,
        call="hw.concepts.channel_relevance",
    ),
)  # fmt: skip
