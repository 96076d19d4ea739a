"""The fleet: one engine made of several, each on its own host."""
