"""How far can an explanation be trusted? Measures of one explanation, of a method, and of several methods.

Every measure is its paper's formula. What it does to the relevance first (an absolute value, a sum over a patch) is an
argument with a name, and shown in the result.
"""

from __future__ import annotations

from headwater.evaluate.agreement import (
    agreement,
    correlation,
    cosine,
    rank_correlation,
    structural_similarity,
    top_overlap,
)
from headwater.evaluate.axioms import completeness_gap, continuity, input_invariance, segment, symmetry
from headwater.evaluate.chance import permuted_label_maps, randomized_maps, significance
from headwater.evaluate.compare import compare
from headwater.evaluate.comparison import Comparison
from headwater.evaluate.complexity import cancellation, effective_features, entropy, file_size, gini
from headwater.evaluate.cost import cost
from headwater.evaluate.explainer import Explainer, random_relevance
from headwater.evaluate.faithfulness import faithfulness_correlation, infidelity, max_sensitivity, road, sensitivity_n
from headwater.evaluate.flipping import deletion, insertion, pixel_flipping
from headwater.evaluate.ground_truth import ground_truth
from headwater.evaluate.health import check
from headwater.evaluate.localization import (
    block_cosine,
    block_percentage,
    block_shares,
    boxes_mask,
    mass_accuracy,
    pointing_game,
    rank_accuracy,
)
from headwater.evaluate.manipulation import manipulate_input, manipulate_model
from headwater.evaluate.randomization import logit_randomization, parameter_randomization, redraw
from headwater.evaluate.retraining import remove_and_retrain
from headwater.evaluate.statistics import adjusted, anova, bootstrap_interval, cohens_d, tukey_hsd
from headwater.evaluate.truth import linear, logic, majority_sequences, tones, watermarked, words

__all__ = [
    "Comparison",
    "Explainer",
    "adjusted",
    "agreement",
    "anova",
    "block_cosine",
    "block_percentage",
    "block_shares",
    "bootstrap_interval",
    "boxes_mask",
    "cancellation",
    "check",
    "cohens_d",
    "compare",
    "completeness_gap",
    "continuity",
    "correlation",
    "cosine",
    "cost",
    "deletion",
    "effective_features",
    "entropy",
    "faithfulness_correlation",
    "file_size",
    "gini",
    "ground_truth",
    "infidelity",
    "input_invariance",
    "insertion",
    "linear",
    "logic",
    "logit_randomization",
    "majority_sequences",
    "manipulate_input",
    "manipulate_model",
    "mass_accuracy",
    "max_sensitivity",
    "parameter_randomization",
    "permuted_label_maps",
    "pixel_flipping",
    "pointing_game",
    "random_relevance",
    "randomized_maps",
    "rank_accuracy",
    "rank_correlation",
    "redraw",
    "remove_and_retrain",
    "road",
    "segment",
    "sensitivity_n",
    "significance",
    "structural_similarity",
    "symmetry",
    "tones",
    "top_overlap",
    "tukey_hsd",
    "watermarked",
    "words",
]
