"""When two orders of removal differ: the mean difference of paired areas with its interval over samples."""

from __future__ import annotations

from torch import Tensor

from experiments.reproduction import Verdict
from headwater.evaluate import bootstrap_interval


def verdict(right: bool) -> Verdict:
    """The verdict of a yes or no."""
    return "reproduced" if right else "not reproduced"


def below(worse: Tensor, better: Tensor) -> tuple[bool, str]:
    """Whether ``better`` lies below ``worse``, samples ``[N]`` each, and the interval of their difference in words."""
    low, high = (float(end) for end in bootstrap_interval(worse - better))
    return low > 0, f"difference {low:+.3f} to {high:+.3f}"
