"""What the methods by kernel regression share: labels as centred rows, outer losses, an average of what is learned."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery.batch import Batch

if TYPE_CHECKING:
    from condensery.data.labelled import Labelled
    from condensery.synthetic import Images


def centred_one_hot(classes: Tensor, num_classes: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows onehot(c) - 1/C ``[n, C]``: the targets of squared-error training in FRePo and RCIG.

    Example:
        >>> centred_one_hot(torch.tensor([1]), 2)
        tensor([[-0.5000,  0.5000]])
    """
    return F.one_hot(classes, num_classes).to(dtype) - 1 / num_classes


class OuterLoss(Protocol):
    """How far predictions on real examples are from their classes. `learned` holds what the loss itself learns."""

    def learned(self, device: torch.device) -> dict[str, Tensor]:
        """Fresh parameters that descend together with the synthetic set, by name."""

    def __call__(self, predictions: Tensor, classes: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """A scalar: the mean over examples ``[m, C]``, ``[m]``."""


@dataclass(frozen=True)
class Squared:
    """Half the squared error against centred one-hot rows, summed over classes and averaged over examples.

    KIP's and FRePo's loss (`RFAD` calls it MSE).

    Example:
        >>> Squared()(torch.zeros(1, 2), torch.tensor([0]), {}).item()
        0.25
    """

    def learned(self, device: torch.device) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def __call__(self, predictions: Tensor, classes: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """See `OuterLoss`."""
        targets = centred_one_hot(classes, predictions.shape[1], dtype=predictions.dtype)
        return 0.5 * (predictions - targets).square().sum(1).mean()


@dataclass(frozen=True)
class Platt:
    """Cross entropy of the predictions times a learned inverse temperature exp(log_tau) (Loo et al. 2022, section 3.2).

    RFAD's and RCIG's loss: regression predicts centred rows, whose size says nothing about certainty, and the learned
    scale turns them into logits (Platt 1999). log_tau starts from 0.

    Example:
        >>> loss = Platt()
        >>> round(loss(torch.zeros(1, 2), torch.tensor([0]), loss.learned(torch.device("cpu"))).item(), 3)
        0.693
    """

    def learned(self, device: torch.device) -> dict[str, Tensor]:
        """log_tau, 0."""
        return {"log_tau": torch.zeros((), device=device, requires_grad=True)}

    def __call__(self, predictions: Tensor, classes: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """See `OuterLoss`."""
        return F.cross_entropy(predictions * learned["log_tau"].exp().to(predictions.dtype), classes)


class LearnedLoss:
    """An outer loss together with what it learns, which is made on the device where it is first needed.

    Args:
        loss: The outer loss.

    Example:
        >>> loss = LearnedLoss(Platt())
        >>> round(loss(torch.zeros(1, 2), torch.tensor([0])).item(), 3), loss.figures()
        (0.693, {'log_tau': tensor(0.)})
    """

    def __init__(self, loss: OuterLoss) -> None:
        self.loss = loss
        self._learned: dict[str, Tensor] | None = None

    def learned(self, device: torch.device) -> dict[str, Tensor]:
        """The learned parameters, by name."""
        if self._learned is None:
            self._learned = self.loss.learned(device)
        return self._learned

    def __call__(self, predictions: Tensor, classes: Tensor) -> Tensor:
        """The loss of predictions ``[m, C]`` on classes ``[m]``, a scalar."""
        return self.loss(predictions, classes, self.learned(predictions.device))

    def groups(self, synthetic: nn.Module, rates: Mapping[str, float], lr: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: those of the set that `rates` names, and at `lr` what the loss learns."""
        parameters = list(synthetic.named_parameters())
        learned = list(self.learned(parameters[0][1].device).values())
        groups = [{"params": [p], "lr": rates[name]} for name, p in parameters if name in rates]
        return [*groups, *([{"params": learned, "lr": lr}] if learned else [])]

    def figures(self) -> dict[str, Tensor]:
        """What is learned as it is now, for the log."""
        return {name: p.detach().clone() for name, p in (self._learned or {}).items()}

    def state_dict(self) -> dict[str, Tensor] | None:
        """What is learned, if it was made."""
        return None if self._learned is None else self.figures()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor] | None) -> None:
        """Restore what `state_dict` gave, in place: an optimizer may hold the parameters already."""
        for name, value in (state or {}).items():
            self.learned(value.device)[name].copy_(value)


def real_batch(real: Labelled, count: int, generator: torch.Generator) -> Batch:
    """Real images drawn without replacement, all of them where there are fewer: ``[m, c, h, w]``, ``[m]``."""
    return real.batch(torch.randperm(len(real), generator=generator)[:count])


def check_regression(batch_real: int, ridge: float) -> None:
    """Refuse an impossible real batch or ridge.

    Raises:
        ValueError: Naming what to give.
    """
    if batch_real < 1 or ridge <= 0:
        raise ValueError(f"batch_real is {batch_real}, ridge {ridge:g}; give at least 1, and a number above 0.")


def margin(labels: Tensor, limit: float) -> Tensor:
    """The mean over examples of min(largest - second largest label, limit): what FRePo's and RCIG's codes reward.

    It keeps each label row's class apart until the margin reaches the limit (FRePo: 1/C, RCIG: 1/(2C)). In no paper.

    Example:
        >>> margin(torch.tensor([[1.0, 0.75], [3.0, 0.0]]), 0.5).item()
        0.375
    """
    first, second = labels.topk(2, dim=1).values.unbind(1)
    return (first - second).clamp(max=limit).mean()


class Average:
    """An exponential moving average of a module's parameters, with its bias corrected: RCIG's code keeps this one.

    After t updates the average is sum of (1 - d) d^(t - i) p_i over i = 1..t, divided by 1 - d^t.

    Args:
        decay: d; RCIG has 0.99.

    Example:
        >>> module, average = nn.Linear(1, 1, bias=False), Average(0.5)
        >>> for value in (1.0, 4.0):
        ...     _ = module.weight.data.fill_(value)
        ...     average.update(module)
        >>> average.of(module).weight.item()
        3.0
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"A decay of {decay} is no average; give a number of at least 0 and below 1.")
        self.decay, self.count = decay, 0
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the parameters as they are now."""
        self.count += 1
        for name, p in module.named_parameters():
            old = self._sums.get(name)
            self._sums[name] = (torch.zeros_like(p) if old is None else old.to(p.device)).lerp(p, 1 - self.decay)

    @torch.no_grad()
    def of(self, synthetic: Any) -> Any:
        """A copy of the module with the average in place of its parameters; as it is before any update."""
        result = copy.deepcopy(synthetic)
        for name, p in result.named_parameters():
            if name in self._sums:
                p.copy_(self._sums[name] / (1 - self.decay**self.count))
        return result

    def state_dict(self) -> dict[str, Any]:
        """The sums and how many updates they hold."""
        return {"sums": dict(self._sums), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._sums, self.count = dict(state["sums"]), state["count"]


def rows_of_labels(images: Images, num_classes: int) -> Tensor:
    """The labels of a set's batch as rows ``[n, C]``: its own, or centred one-hot rows of its classes."""
    _, y = images()
    return y if y.is_floating_point() else centred_one_hot(y, num_classes, dtype=images.values.dtype)
