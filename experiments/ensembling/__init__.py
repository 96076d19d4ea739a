"""Parts of experiments/ensemble.py."""
