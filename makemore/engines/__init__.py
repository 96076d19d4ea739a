"""What trains: engines keep models in slots, each on its own clock, and train them to their next evaluation."""

from makemore.engines.base import Diverged, Engine, EngineFailed, EvalPoint, Outcome, TrainResult

__all__ = ["Diverged", "Engine", "EngineFailed", "EvalPoint", "Outcome", "TrainResult"]
