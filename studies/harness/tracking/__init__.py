"""MLflow: sends trials there, checks and repairs what it holds, and starts its UI."""
