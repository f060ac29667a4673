"""Slow formulas, written out from the papers, that the library is measured against."""
