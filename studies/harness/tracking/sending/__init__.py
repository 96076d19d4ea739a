"""Sends the trials of a launch to MLflow while it trains."""
