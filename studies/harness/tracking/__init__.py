"""MLflow: sends trials to it, compares and repairs its runs, and serves its UI."""
