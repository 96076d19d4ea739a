"""The fleet: one engine made of several, each on a host of its own."""
