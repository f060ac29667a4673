"""Whole data sets' relevance: pooled, clustered, measured over training, and compared across models."""

from __future__ import annotations

from headwater.analyze.diff import Diff, diff
from headwater.analyze.groups import FeatureGroups, boxes, channels, masks, objects, segments, windows, words
from headwater.analyze.normalize import Normalization
from headwater.analyze.pooling import Pooled, kmeans, pool
from headwater.analyze.repair import Artefact, Figures, Repair, artefact, assess, load_repaired, project, repair
from headwater.analyze.signals import Match, feature_maps, match, mean_power, over_training, redundancy, spread
from headwater.analyze.spray import spray
from headwater.analyze.strategies import Cluster, Spray

__all__ = [
    "Artefact", "Cluster", "Diff", "FeatureGroups", "Figures", "Match", "Normalization", "Pooled", "Repair", "Spray",
    "artefact", "assess", "boxes", "channels", "diff", "feature_maps", "kmeans", "load_repaired", "masks", "match",
    "mean_power", "objects", "over_training", "pool", "project", "redundancy", "repair", "segments", "spray", "spread",
    "windows", "words",
]  # fmt: skip
