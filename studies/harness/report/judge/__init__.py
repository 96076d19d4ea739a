"""Verdicts on a search: noise, ranges, step budget, pruning, when to stop."""
