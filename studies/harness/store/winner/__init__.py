"""The winner of a study, and the seed repeats that confirm it."""

# Names of a config's mean over seed repeats, its margin (95%) and the number of repeats, in MLflow
# and in exported files.
CONFIRMED = ("confirmed_dev_loss", "confirmed_ci", "confirmed_n")
