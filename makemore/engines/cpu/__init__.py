"""The CPU engine: one model per thread, trained by a compiled kernel."""
