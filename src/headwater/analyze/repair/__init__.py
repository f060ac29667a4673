"""From a suspicious cluster to a repaired model: the artefact, ways to be rid of it, and what they changed."""

from headwater.analyze.repair.artefact import Artefact, artefact
from headwater.analyze.repair.figures import Figures, assess
from headwater.analyze.repair.outcome import Repair
from headwater.analyze.repair.projection import load_repaired, project
from headwater.analyze.repair.repair import repair

__all__ = ["Artefact", "Figures", "Repair", "artefact", "assess", "load_repaired", "project", "repair"]
