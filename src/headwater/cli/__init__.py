"""The command line; each module adds the commands of one stage."""

from headwater.cli import explain
from headwater.cli.app import app

__all__ = ["app", "explain"]
