"""HTML page of a report, and the note on its MLflow run."""
