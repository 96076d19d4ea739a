"""Parts of experiments/retrain.py: train seeds, evaluate them, report and log the results."""
