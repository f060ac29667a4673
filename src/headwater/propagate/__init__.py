"""The propagation engine."""
