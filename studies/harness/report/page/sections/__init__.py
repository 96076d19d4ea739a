"""Numbered sections of the report, one module each."""
