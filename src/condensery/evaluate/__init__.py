"""How good a condensed set is: functions that return scores."""

from condensery.evaluate.score import Row, Score, Scores
from condensery.evaluate.transfer import Trials, ceiling, random_row, random_subset, transfer

__all__ = ["Row", "Score", "Scores", "Trials", "ceiling", "random_row", "random_subset", "transfer"]
