"""The propagation engine: factors instead of relevance, operators instead of modules."""

from headwater.propagate.operators import register

__all__ = ["register"]
