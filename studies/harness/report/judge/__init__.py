"""Verdicts on a study: noise, ranges, step budget, pruning, number of trials."""
