"""Reports on a study: tables, verdicts, figures and one HTML page."""
