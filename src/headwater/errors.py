"""The errors and warnings of Headwater, drawn as a tree.

HeadwaterError
├── InvalidInput            an argument that cannot be explained as given (also a ValueError)
│   └── InputRefused        one on which the model itself fails (also a RuntimeError)
├── InvalidTarget           a target that the model's output does not have (also a ValueError)
├── InvalidComposite        a selector, rule or preset that does not exist (also a ValueError)
├── UnsupportedOperator     an operator without a treatment, or one that cannot be seen
├── UnsupportedModel        a model that cannot be explained as it stands (scripted, quantized, in training mode)
├── NonFinite               NaN or infinity in weights, input, on the way or in the result
└── MissingExtra            an optional dependency that is not installed (also an ImportError)

HeadwaterWarning            something that changes how an explanation should be read
"""

from __future__ import annotations


class HeadwaterError(Exception):
    """Root of every error that Headwater raises on purpose."""


class InvalidInput(HeadwaterError, ValueError):
    """An argument that cannot be explained as given; the text names it and what to pass instead."""


class InputRefused(InvalidInput, RuntimeError):
    """An input on which the model itself fails; its own error, with its place, is the cause of this one."""


class InvalidTarget(HeadwaterError, ValueError):
    """A target that does not fit the model's output; the text lists the choices."""


class InvalidComposite(HeadwaterError, ValueError):
    """A selector, rule or preset that does not exist, or one that cannot be used where it was placed."""


class UnsupportedOperator(HeadwaterError):
    """An operator without a treatment: the text names it, its layer, the line that called it and the remedy."""


class UnsupportedModel(HeadwaterError):
    """A model that cannot be explained as it stands; the text names the module and what to do."""


class NonFinite(HeadwaterError):
    """NaN or infinity in weights, input or on the way; the text names where it appeared first."""


class MissingExtra(HeadwaterError, ImportError):
    """An optional dependency is not installed.

    Args:
        extra: the extra of this package that brings it, as in ``pip install headwater[extra]``.
        package: the package that is missing.
    """

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'headwater[{extra}]'")
        self.extra, self.package = extra, package


class HeadwaterWarning(UserWarning):
    """Something that changes how an explanation should be read, but does not make it wrong."""
