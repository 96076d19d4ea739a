"""Optuna's storage, which holds the study: journal, locks, launches, trials."""
