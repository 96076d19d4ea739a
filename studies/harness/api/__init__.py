"""The functions for Python and notebooks, which `studies` exports."""
