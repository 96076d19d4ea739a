"""Samplers: the rules that choose the parameters of the next trial."""
