"""The removal engine: hide features, fill the hole, ask the model again.

Every method is a sampler of holes, an imputer that fills them, and an estimator of what the answers say.
"""

from headwater.remove.predict import BlackBox, black_box
from headwater.remove.rows import ROWS

__all__ = ["ROWS", "BlackBox", "black_box"]
