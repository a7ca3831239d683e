"""The best set on the way in place of the last: any method, judged by validation or by another score."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor, nn

from condensery.loop import Objective, result

__all__ = ["Best", "KeepBest", "Keeping", "better_of", "keeping_best", "kept_accuracy", "kept_step", "restored"]


class Best(TypedDict):
    """The best set of a run so far.

    ``score``: how good it is, lower is better. ``step``: steps done when it was reached. ``set``: its tensors.
    """

    score: float
    step: int
    set: dict[str, Tensor]


def better_of(best: Best | None, synthetic: nn.Module, score: float, step: int) -> Best:
    """The better of the best so far and a set, the earlier one where they are as good.

    Args:
        best: The best so far, if there is one.
        synthetic: The set; its tensors are copied.
        score: How good it is, lower is better.
        step: Steps done.
    """
    if best is not None and not score < best["score"]:
        return best
    held = {name: value.detach().clone() for name, value in synthetic.state_dict().items()}
    return Best(score=score, step=step, set=held)


def restored(best: Best, like: Any) -> Any:
    """The best set as an object of its own.

    Args:
        best: What was kept.
        like: A set of the same kind and size, which stays as it is.
    """
    chosen = copy.deepcopy(like)
    chosen.load_state_dict(best["set"])
    return chosen


@dataclass
class KeepBest:
    """An objective whose result is the best set on the way rather than the last.

    Methods that match a few real examples too well get worse on the test data while their loss still falls; how long
    to condense is then a choice that validation data make as well as people. The set is judged before the first step,
    after every so many, and at the end. Descending is not changed by it.

    Args:
        objective: The method.
        score: How good a set is, lower is better: for instance the validation error of a network that is trained on it.
            Of a method with a result of its own, such as an average of iterates, that result is judged and kept.
        every: Steps between two looks.

    Raises:
        ValueError: If `every` is not positive.

    Example:
        >>> from condensery import Images, condense
        >>> class Falling:  # lowers the pixel by 1 a step
        ...     def __call__(self, images): return images.values.sum()
        ...     def optimizer(self, images): return torch.optim.SGD(images.parameters(), lr=1.0)
        >>> images = Images(torch.full((1, 1, 1, 1), 4.0), torch.tensor([0]))
        >>> judged = KeepBest(Falling(), lambda images: (images.values - 2).abs().sum().item(), every=1)
        >>> condense(images, judged, steps=4).values.item(), images.values.item(), judged.best(images)["step"]
        (2.0, 0.0, 2)
    """

    objective: Objective
    score: Callable[[Any], float]
    every: int
    figures: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _done: int = field(default=0, init=False, repr=False)
    _best: Best | None = field(default=None, init=False, repr=False)
    _seen: tuple[int, Best] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"The best set is looked for every {self.every} steps; give at least 1.")

    def __call__(self, synthetic: Any) -> Tensor:
        """The method's own scalar."""
        if self._done % self.every == 0:
            self._best = self.best(synthetic)
        self._done += 1
        loss = self.objective(synthetic)
        assert self._best is not None
        told = {"best_score": self._best["score"], "best_step": self._best["step"]}
        self.figures = {**getattr(self.objective, "figures", {}), **told}
        return loss

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """The method's own."""
        return self.objective.optimizer(synthetic)

    @property
    def generator(self) -> torch.Generator | None:
        """What the method draws with."""
        return getattr(self.objective, "generator", None)

    def best(self, synthetic: Any) -> Best:
        """The best set so far, the one of now included; asking for it changes nothing of the run."""
        if self._seen is None or self._seen[0] != self._done:
            made = result(synthetic, self.objective)
            self._seen = (self._done, better_of(self._best, made, float(self.score(made)), self._done))
        return self._seen[1]

    def result(self, synthetic: Any) -> Any:
        """That set."""
        return restored(self.best(synthetic), synthetic)

    def state_dict(self) -> dict[str, Any]:
        """Steps done, the best set so far, and what the method keeps."""
        keeps = hasattr(self.objective, "state_dict")
        own = self.objective.state_dict() if keeps else None  # type: ignore[attr-defined]
        return {"done": self._done, "best": self._best, "objective": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._done, self._best, self._seen = state["done"], state["best"], None
        if state["objective"] is not None:
            self.objective.load_state_dict(state["objective"])  # type: ignore[attr-defined]


class Keeping(Protocol):
    """What a plan says of the set that a run keeps."""

    @property
    def keep_every(self) -> int:
        """Steps between two looks for the best set; 0 to keep the last."""

    @property
    def keep_budget(self) -> float:
        """Share of the evaluation recipe for a look."""


def keeping_best(
    objective: Objective,
    how: Keeping | None,
    name: str,
    validation: Sized,
    judged: Callable[[Any, float], float],
    what: str,
) -> Objective:
    """A method that keeps the set that validates best, where a plan wants it; the method itself otherwise.

    Args:
        objective: The method.
        how: What the plan says.
        name: Of the data, for the message.
        validation: Their validation split.
        judged: The accuracy on it of a network that is trained on a set, with a share of the recipe.
        what: What the data consist of, for the message.

    Raises:
        ValueError: If there is nothing to choose by.
    """
    if how is None or not how.keep_every:
        return objective
    if len(validation) == 0:
        raise ValueError(f"{name} has no validation {what} to choose the best set by; leave --keep-best out.")
    return KeepBest(objective, lambda made: 1 - judged(made, how.keep_budget), how.keep_every)


def kept_step(objective: Objective, synthetic: Any) -> dict[str, Any]:
    """Which step's set a finished run kept and its validation accuracy, plain data; nothing where it is the last."""
    if not isinstance(objective, KeepBest):
        return {}
    best = objective.best(synthetic)
    return {"kept_step": best["step"], "kept_validation": 1 - best["score"]}


def kept_accuracy(objective: Objective, synthetic: Any, how: Keeping | None, budget: float) -> float | None:
    """Validation accuracy of the set that would be kept now, where the choice of the best one measures just that.

    Args:
        objective: The method.
        synthetic: The set as it is.
        how: What the plan says.
        budget: Share of the evaluation recipe that is asked for.
    """
    if not isinstance(objective, KeepBest) or how is None or how.keep_budget != budget:
        return None
    return 1 - objective.best(synthetic)["score"]
