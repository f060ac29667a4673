"""The command line; each module adds the commands of one stage."""

from headwater.cli import compare, dataset, explain, imported, optimize, repair, reproduce, view
from headwater.cli.app import app

__all__ = ["app", "compare", "dataset", "explain", "imported", "optimize", "repair", "reproduce", "view"]
