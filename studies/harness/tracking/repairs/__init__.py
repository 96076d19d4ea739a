"""Compares MLflow with Optuna's storage, and repairs what differs."""
