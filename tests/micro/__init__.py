"""Networks of one construct each, and what must hold on every one of them."""
