"""Connects to MLflow's tracking store: a server, or the SQLite database in mlruns/."""
