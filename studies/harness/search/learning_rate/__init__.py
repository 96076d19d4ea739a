"""Search of the learning rate alone: range test, sweep of whole trainings, audit of the rules."""
