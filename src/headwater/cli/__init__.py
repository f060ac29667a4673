"""The command line; each module adds the commands of one stage.

What needs torch is imported by the command that runs: the shell's completion and ``--help`` do not wait for it.
"""

from headwater.cli import compare, dataset, explain, imported, optimize, repair, reproduce, view
from headwater.cli.app import app

__all__ = ["app", "compare", "dataset", "explain", "imported", "optimize", "repair", "reproduce", "view"]
