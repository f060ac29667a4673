"""Whole architectures: randomly initialized ones, and trained ones on real data."""
