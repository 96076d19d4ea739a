"""The batched engine for GPUs: many different models in one training step."""
