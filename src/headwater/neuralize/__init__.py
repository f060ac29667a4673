"""Models that are no networks, as networks: clusterings, kernel machines, pipelines, Fisher vectors."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.errors import MissingExtra
from headwater.neuralize.adapter import explain_estimator
from headwater.neuralize.estimators import Neuralized, is_estimator, neuralize
from headwater.neuralize.files import load_estimator
from headwater.neuralize.histograms import histogram_intersection
from headwater.neuralize.video import motion_vectors, read_frames, video_folder

if TYPE_CHECKING:
    from headwater.neuralize.fisher import FisherVectors
    from headwater.neuralize.kernel_kmeans import KernelKMeans

__all__ = [
    "FisherVectors",
    "KernelKMeans",
    "Neuralized",
    "explain_estimator",
    "histogram_intersection",
    "is_estimator",
    "load_estimator",
    "motion_vectors",
    "neuralize",
    "read_frames",
    "video_folder",
]

_OWN_ESTIMATORS = {"FisherVectors": "fisher", "KernelKMeans": "kernel_kmeans"}


def __getattr__(name: str) -> Any:
    """Estimators of our own, which inherit from scikit-learn's, are loaded when they are asked for."""
    if name not in _OWN_ESTIMATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_OWN_ESTIMATORS[name]}"), name)
    except ImportError:
        raise MissingExtra("estimators", "scikit-learn") from None
