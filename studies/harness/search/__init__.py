"""Search: spaces, samplers, pruners, and the loop that trains the trials."""
