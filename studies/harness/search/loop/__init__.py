"""The loop of a study: its queue of trials, the coordinator, and what happens when a trial ends."""
