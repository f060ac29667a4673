"""The register of methods: a name, what it is composed of, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.errors import InvalidInput

REVIEW = (
    "Samek, Montavon, Lapuschkin, Anders, Müller: Explaining Deep Neural Networks and Beyond, Proc. IEEE 109(3), 2021"
)
OVERVIEW = "Samek, Wiegand, Müller: Explainable Artificial Intelligence, ITU Journal 1(1), 2018"
THESIS = "Chormai: Designing Recurrent Neural Networks for Explainability, TU Berlin, 2018"
LRP = "Bach et al.: On Pixel-Wise Explanations for Non-Linear Classifier Decisions by LRP, PLoS ONE 10(7), 2015"


@dataclass(frozen=True)
class Method:
    """One method of explanation.

    Attributes:
        name, abbreviation: as the papers' glossary has them; ``family``: the engine that runs it.
        source: where it comes from; ``needs``: what it needs of a model.
        composite: the preset it runs with; ``result``: what of the walk it returns: "relevance", "factor", "absolute" or "square".
        complete: its relevance sums to the explained score, up to what the ledger names.
    """

    name: str
    abbreviation: str
    family: str
    source: str
    needs: str
    composite: str = "default"
    result: str = "relevance"
    complete: bool = True


class Register(tuple[Method, ...]):
    """The rows of the register; prints as a table."""

    def __str__(self) -> str:
        lines = [f"{'name':32} {'abbr.':10} {'family':10} {'needs':34} source"]
        lines += [f"{m.name:32} {m.abbreviation:10} {m.family:10} {m.needs:34} {m.source}" for m in self]
        return "\n".join(lines)

    __repr__ = __str__


_GRADIENT = "a differentiable model"
_OPERATORS = "operators with a treatment"
_METHODS = Register(
    (
        Method("lrp", "LRP", "propagate", f"{LRP}; {REVIEW}", _OPERATORS),
        Method("deep_taylor", "DTD", "propagate", f"Montavon et al. 2017; {REVIEW}; {THESIS}", _OPERATORS, "deep_taylor"),
        Method("attnlrp", "AttnLRP", "propagate", "Achtibat et al.: AttnLRP, ICML 2024", _OPERATORS, "attnlrp"),
        Method("cplrp", "CP-LRP", "propagate", "Ali et al.: XAI for Transformers, ICML 2022", _OPERATORS, "cplrp"),
        Method("excitation_backprop", "EB", "propagate", f"Zhang et al. 2018; {REVIEW}", _OPERATORS, "excitation_backprop"),
        Method(
            "contrastive_excitation_backprop", "c-EB", "propagate", f"Zhang et al. 2018; {REVIEW}", _OPERATORS,
            "contrastive_excitation_backprop", complete=False,
        ),
        Method("gradient", "Grad", "propagate", f"Simonyan et al. 2014; {REVIEW}", _GRADIENT, "gradient", "factor", False),
        Method("sensitivity", "SA", "propagate", f"{OVERVIEW}; {THESIS}", _GRADIENT, "gradient", "absolute", False),
        Method("gradient_x_input", "GI", "propagate", f"Shrikumar et al. 2017; {REVIEW}", _GRADIENT, "gradient", complete=False),
        Method("guided_backprop", "GB", "propagate", f"Springenberg et al. 2015; {THESIS}", "ReLU-like activations", "guided_backprop", "factor", False),
        Method("deconvnet", "Deconv", "propagate", f"Zeiler and Fergus 2014; {REVIEW}", "ReLU-like activations", "deconvnet", "factor", False),
    )
)  # fmt: skip


def methods() -> Register:
    """All methods, as rows with ``name``, ``abbreviation``, ``family``, ``source`` and ``needs``; prints as a table."""
    return _METHODS


def find(name: str) -> Method:
    """A method by name or abbreviation.

    Raises:
        InvalidInput: for an unknown name; the text lists the known ones.
    """
    for method in _METHODS:
        if name in (method.name, method.abbreviation):
            return method
    raise InvalidInput(f"Unknown method {name!r}: choose from {', '.join(m.name for m in _METHODS)}")
