"""Preprocessing of node features: as given, each row divided by its sum, or standardised on the training nodes.

Each kind is a map of features ``[n, d]`` that a file of condensed nodes can describe by `config` and `tensors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

__all__ = ["AsGiven", "FeatureFit", "FeatureMap", "RowNormalised", "StandardScaled", "feature_map_from_config"]


class FeatureMap(Protocol):
    """Features as stored to features as networks see them."""

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``[n, d]`` to float32 ``[n, d]``."""
        ...

    def config(self) -> dict[str, Any]:
        """What JSON can hold of it; with `tensors` enough for `feature_map_from_config`."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        ...


FeatureFit: TypeAlias = Callable[[Tensor], FeatureMap]
"""From the training nodes' features ``[m, d]`` to a map: `AsGiven.of`, `RowNormalised.of`, `StandardScaled.of`."""


@dataclass(frozen=True)
class AsGiven:
    """Features unchanged."""

    @classmethod
    def of(cls, x: Tensor) -> AsGiven:
        """The map; the training features are not looked at."""
        return cls()

    def __call__(self, x: Tensor) -> Tensor:
        """The features ``[n, d]`` as float32."""
        return x.float()

    def config(self) -> dict[str, Any]:
        """``{"kind": "as-given"}``."""
        return {"kind": "as-given"}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class RowNormalised:
    """Each node's features divided by the sum of their magnitudes, as Planetoid's are; rows of zeros stay.

    Example:
        >>> RowNormalised()(torch.tensor([[1.0, 3.0], [0.0, 0.0]])).tolist()
        [[0.25, 0.75], [0.0, 0.0]]
    """

    @classmethod
    def of(cls, x: Tensor) -> RowNormalised:
        """The map; the training features are not looked at."""
        return cls()

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``[n, d]`` with rows of sum 1."""
        total = x.float().abs().sum(1, keepdim=True)
        return x.float() / torch.where(total > 0, total, torch.ones_like(total))

    def config(self) -> dict[str, Any]:
        """``{"kind": "row-normalised"}``."""
        return {"kind": "row-normalised"}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@dataclass(frozen=True, eq=False)
class StandardScaled:
    """``(x - mean) / std`` for each feature, fitted on the training nodes, as ogbn-arxiv, Flickr and Reddit are.

    Attributes:
        mean: float32 ``[d]``.
        std: float32 ``[d]``, over all training nodes (divided by m); 1 where a feature is constant.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, x: Tensor) -> StandardScaled:
        """Fitted on the training nodes' features ``[m, d]``."""
        rows = x.double()
        std = rows.std(0, correction=0)
        return cls(rows.mean(0).float(), torch.where(std > 0, std, torch.ones_like(std)).float())

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``[n, d]``, each centred and scaled."""
        return (x.float() - self.mean.to(x.device)) / self.std.to(x.device)

    def config(self) -> dict[str, Any]:
        """``{"kind": "standard-scaled"}``."""
        return {"kind": "standard-scaled"}

    def tensors(self) -> dict[str, Tensor]:
        """``mean`` and ``std``."""
        return {"mean": self.mean, "std": self.std}


def feature_map_from_config(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FeatureMap:
    """The map that `config` and `tensors` describe.

    Raises:
        ValueError: For an unknown kind.
    """
    kind = config.get("kind")
    if kind == "standard-scaled":
        return StandardScaled(tensors["mean"], tensors["std"])
    kinds: dict[object, FeatureMap] = {"as-given": AsGiven(), "row-normalised": RowNormalised()}
    if kind not in kinds:
        raise ValueError(f"Features were preprocessed by {kind!r}; choose as-given, row-normalised or standard-scaled.")
    return kinds[kind]
