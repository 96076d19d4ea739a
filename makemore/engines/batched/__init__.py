"""The batched engine: many different models in one training step, for GPUs (not run on one yet)."""
