"""Optuna's storage of a study: journal, locks, launches and trials."""
