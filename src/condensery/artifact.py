"""One self-describing file for a condensed set: load it, and everything needed to use it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from condensery import configs, nets, records
from condensery.batch import Batch
from condensery.data import augment, whitening
from condensery.data.whitening import Preprocessing
from condensery.fitting import Adam, Constant, CrossEntropy, Drop, Recipe, Sgd, SquaredError, WarmupCosine
from condensery.store import save_tree
from condensery.synthetic import Identity, Images, MultiFormation, per_class_of, size_in_bytes

KIND = "condensery-artifact"
VERSION = 1

_BUILDABLE: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *(Identity, MultiFormation, Recipe, Sgd, Adam, Constant, Drop, WarmupCosine, CrossEntropy, SquaredError),
        *augment.CLASSES,
    )
}


@dataclass(frozen=True)
class Artifact:
    """A condensed set with all that gives it meaning.

    Attributes:
        images: The synthetic set, or a coreset's real images.
        classes: Class names.
        preprocessing: How pixels became what the network sees, with its matrices; its inverse is for display.
        recipe: How networks are trained on the set.
        network: The network it was condensed with, as `nets.describe` gives it.
        dataset: The name of the data.
        method: The name of the method or coreset.
        options: Every option of the method and the run.
        seed: The run's seed.
        split: How the data was split, so that evaluating splits it the same way (see `data.ImageData`).
        indices: For a coreset, which training images these are, int64 ``[n]``.
        scores: Results so far, plain data.
        versions: Of condensery, torch and Python at the time of writing.
        provenance: Seconds, steps, hardware; plain data.
    """

    images: Images
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: Recipe
    network: Mapping[str, Any]
    dataset: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    split: Mapping[str, Any] = field(default_factory=dict)
    indices: Tensor | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=records.versions)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def batch(self, *, hard_labels: bool = False, device: torch.device | str | None = None) -> Batch:
        """What a network is trained on.

        Args:
            hard_labels: Replace soft or learned labels by the class of each image (a check that the images, and not
                only their labels, carry the accuracy).
            device: Where to.
        """
        x, y = (value.detach() for value in self.images())
        if hard_labels:
            y = self.images.classes.repeat_interleave(self.images.copies)
        return Batch(x.to(device), y.to(device)) if device is not None else Batch(x, y)

    def training_recipe(self) -> Recipe:
        """The recipe, with the learned step size as its learning rate if the set has one."""
        step = self.images.step_size
        return self.recipe if step is None else self.recipe.with_lr(float(step.detach()))

    def build_network(self) -> nn.Module:
        """A fresh network of the kind the set was condensed with."""
        try:
            return nets.build(self.network)
        except TypeError as error:
            raise ValueError(f"The network of the set cannot be built ({error}); build one yourself.") from None

    @cached_property
    def pictures(self) -> Tensor:
        """The stored images as pixels for display, float ``[n, c, h, w]`` clamped to [0, 1]."""
        return self.preprocessing.inverse(self.images.values.detach()).clamp(0, 1)

    @property
    def per_class(self) -> list[int]:
        """Stored images for each class."""
        return per_class_of(self.images.classes, len(self.classes))

    @property
    def for_validation(self) -> bool:
        """Whether it is validation data that a calibration made, which nothing should be trained on."""
        return "calibration" in self.provenance

    @property
    def spent(self) -> dict[str, Any]:
        """What the set really costs: images stored, images trained on, kind of labels, bytes."""
        return {
            "images": len(self.images.classes),
            "images_in_training": len(self.images.classes) * self.images.copies,
            "labels": self.images.kind_of_labels,
            "bytes": size_in_bytes(self.images),
        }

    def save(self, path: str | Path) -> None:
        """Write the file (``.safetensors``): whole or not at all."""
        state = self.images
        tree = {
            "images": {
                "values": state.values,
                "classes": state.classes,
                "labels": state.labels,
                "step_size": state.step_size,
                "learn_labels": state.kind_of_labels == "learned",
                "logits": state.logits,
                "mirrored": state.mirrored,
                "formation": configs.to_config(state.formation),
            },
            "preprocessing": {"config": self.preprocessing.config(), "tensors": dict(self.preprocessing.tensors())},
            "recipe": configs.to_config(self.recipe),
            "indices": self.indices,
            "classes": list(self.classes),
            **{name: records.plain(getattr(self, name)) for name in records.MADE},
        }
        save_tree(path, tree, kind=KIND, version=VERSION)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> Artifact:
        """Read a file. Nothing in it is executed or unpickled.

        Raises:
            FileNotFoundError: If there is none.
            DamagedFile: In one sentence, if it cannot be read or does not make sense.
        """
        return records.opened(
            path, lambda tree: _from_tree(cls, tree, device), kind=KIND, version=VERSION, what="condensed set"
        )


def _check_types(tree: Mapping[str, Any]) -> None:
    """Raise a TypeError for a part of the wrong type."""
    stored, names = tree["images"], tree["classes"]
    also = {name: isinstance(stored[name], Tensor) for name in ("values", "classes")}
    also |= {name: isinstance(stored[name], bool) for name in ("learn_labels", "logits", "mirrored")}
    also |= {
        "labels": isinstance(stored["labels"], Tensor | None),
        "indices": isinstance(tree["indices"], Tensor | None),
    }
    also |= {"class names": isinstance(names, list) and all(isinstance(c, str) for c in names)}
    records.check_types(tree, records.MADE, also=also)


def _from_tree(cls: type[Artifact], tree: Mapping[str, Any], device: torch.device | str) -> Artifact:
    _check_types(tree)
    stored = tree["images"]
    if int(stored["classes"].max()) >= len(tree["classes"]):
        raise ValueError("it has more classes than class names")
    recipe = configs.from_config(tree["recipe"], _BUILDABLE)
    if not isinstance(recipe, Recipe) or not (recipe.augment is None or callable(recipe.augment)):
        raise TypeError("its recipe is not one")
    images = Images(
        stored["values"],
        stored["classes"],
        labels=stored["labels"],
        learn_labels=stored["learn_labels"],
        logits=stored["logits"],
        step_size=None if stored["step_size"] is None else float(stored["step_size"]),
        formation=configs.from_config(stored["formation"], _BUILDABLE),
        mirrored=stored["mirrored"],
    )
    preprocessing = whitening.from_config(tree["preprocessing"]["config"], tree["preprocessing"]["tensors"])
    return cls(
        images=images.to(device),
        classes=tuple(tree["classes"]),
        preprocessing=preprocessing.to(device),
        recipe=recipe,
        indices=tree["indices"],
        **{name: tree[name] for name in records.MADE},
    )
