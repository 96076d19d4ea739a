"""Verdicts on a study: ranges, step budget, pruning, number of trials."""
