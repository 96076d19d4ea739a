"""The CPU engine: one model in each thread, trained by a compiled kernel."""
