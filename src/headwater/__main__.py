"""``python -m headwater``: the command line."""

from headwater.cli import app

app(prog_name="headwater")
