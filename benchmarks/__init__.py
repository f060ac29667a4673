"""What an explanation costs beside the bare model and beside other libraries: ``python -m benchmarks``."""
