"""What is learned: synthetic data, each kind an ``nn.Module`` that gives a `Batch`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from condensery.batch import Batch

if TYPE_CHECKING:
    from condensery.data.labelled import Labelled
    from condensery.graph import Graph


class Synthetic(Protocol):
    """What an objective and the outer loop ask of synthetic data; every kind is also an ``nn.Module``."""

    def __call__(self) -> Batch:
        """The batch that a network is trained on, differentiable in the parameters."""

    def shifted(self, delta: Mapping[str, Tensor]) -> Batch:
        """The batch with named parameters moved by `delta`, without changing them."""

    def project_(self) -> None:
        """Put the parameters back where they must lie, after an optimizer step."""


class Formation(Protocol):
    """How stored values become images. `repeats` images come from each stored one."""

    @property
    def repeats(self) -> int:
        """Number of images that one stored image becomes."""

    def encode(self, images: Tensor) -> Tensor:
        """Values ``[n, c, h, w]`` that hold images ``[n * repeats, c, h, w]`` as well as they can."""

    def decode(self, values: Tensor) -> Tensor:
        """Images ``[n * repeats, c, h, w]`` from values ``[n, c, h, w]``: those of one value follow each other."""


@dataclass(frozen=True)
class Identity:
    """Each stored image is an image.

    Example:
        >>> Identity().decode(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    repeats = 1

    def encode(self, images: Tensor) -> Tensor:
        """The images ``[n, c, h, w]`` themselves."""
        return images.clone()

    def decode(self, values: Tensor) -> Tensor:
        """The values ``[n, c, h, w]`` themselves."""
        return values


@dataclass(frozen=True)
class MultiFormation:
    """IDC's uniform multi-formation (Kim et al., ICML 2022, section 4.2): factor^2 small images tile each stored one.

    A stored image ``[c, h, w]`` is cut into factor x factor tiles and each is enlarged bilinearly to ``[c, h, w]``.
    Sides that the factor does not divide are padded with zeros at the bottom and right before cutting.

    Args:
        factor: Tiles along each side; 2 and 3 are the paper's.

    Example:
        >>> MultiFormation(2).decode(torch.ones(5, 3, 8, 8)).shape
        torch.Size([20, 3, 8, 8])
    """

    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"The multi-formation factor is {self.factor}; give 1 or more.")

    @property
    def repeats(self) -> int:
        """Images from each stored one: factor^2."""
        return self.factor**2

    def encode(self, images: Tensor) -> Tensor:
        """Shrink images ``[n * factor^2, c, h, w]`` into tiles and lay them out as ``[n, c, h, w]``."""
        h, w = images.shape[-2:]
        th, tw = -(-h // self.factor), -(-w // self.factor)
        tiles = F.interpolate(images, size=(th, tw), mode="bilinear", align_corners=False, antialias=True)
        n = len(images) // self.repeats
        tiles = tiles.view(n, self.factor, self.factor, -1, th, tw).permute(0, 3, 1, 4, 2, 5)
        return tiles.reshape(n, -1, self.factor * th, self.factor * tw)[..., :h, :w].clone()

    def decode(self, values: Tensor) -> Tensor:
        """Cut values ``[n, c, h, w]`` into tiles and enlarge them to images ``[n * factor^2, c, h, w]``."""
        n, c, h, w = values.shape
        th, tw = -(-h // self.factor), -(-w // self.factor)
        padded = F.pad(values, (0, self.factor * tw - w, 0, self.factor * th - h))
        tiles = padded.view(n, c, self.factor, th, self.factor, tw).permute(0, 2, 4, 1, 3, 5)
        return F.interpolate(tiles.reshape(-1, c, th, tw), size=(h, w), mode="bilinear", align_corners=False)


class SortedByClass:
    """Where the classes of a synthetic set of graphs or nodes lie, known without asking the device.

    Attributes:
        classes: int64 ``[n]``, sorted; -1, before the others, for what has no class.
    """

    classes: Tensor
    _counts: dict[int, int]
    _without: int

    def rows(self) -> dict[int, slice]:
        """Where each class lies, for the classes present."""
        places, start = {}, self._without
        for c, count in self._counts.items():
            places[c] = slice(start, start + count)
            start += count
        return places

    def _count(self, *_: object) -> None:
        """Count each class once: after building and after loading."""
        without, *counts = torch.bincount(self.classes + 1, minlength=1).tolist()
        self._counts, self._without = {c: count for c, count in enumerate(counts) if count}, without


class Images(nn.Module):
    """Synthetic images with their labels.

    Args:
        values: Stored images ``[n, c, h, w]`` in the space a network sees (after preprocessing), learned.
        classes: int64 ``[n]``: the class each stored image stands for, whatever its label says. Sorted.
        labels: ``None`` for hard labels (the classes), or soft labels ``[n * repeats, C]``: one row an image.
        learn_labels: Whether the soft labels are learned too.
        logits: Whether the label rows are logits, given to networks through a softmax (as DATM learns them), rather
            than targets as they stand (as FRePo and RCIG learn them).
        step_size: Initial learned step size for training on these images, or ``None`` for none.
        step_floor: The step size is kept at or above this; ``None`` leaves it free, as the authors of MTT do.
        formation: How stored values become images.
        mirrored: Whether each image is followed by its horizontal flip.
        bound: Projection applied to the values after each step, e.g. one that keeps
            pixels between black and white.

    Raises:
        ValueError: If shapes disagree or the classes are not sorted.

    Example:
        >>> images = Images(torch.zeros(3, 1, 8, 8), torch.tensor([0, 0, 1]), mirrored=True)
        >>> images().x.shape, images().y.tolist()
        (torch.Size([6, 1, 8, 8]), [0, 0, 0, 0, 1, 1])
    """

    classes: Tensor

    def __init__(
        self,
        values: Tensor,
        classes: Tensor,
        *,
        labels: Tensor | None = None,
        learn_labels: bool = False,
        logits: bool = False,
        step_size: float | None = None,
        step_floor: float | None = None,
        formation: Formation | None = None,
        mirrored: bool = False,
        bound: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.formation: Formation = formation or Identity()
        self.mirrored, self.logits, self.bound, self.step_floor = mirrored, logits, bound, step_floor
        _check_images(values, classes, labels, self.formation.repeats)
        if learn_labels and labels is None:
            raise ValueError("Hard labels cannot be learned; give `labels`, for instance one_hot(classes).float().")
        self.values = nn.Parameter(values.detach().clone())
        self.register_buffer("classes", classes.detach().clone())
        soft = None if labels is None else labels.detach().clone()
        if learn_labels and soft is not None:
            self.labels: Tensor | None = nn.Parameter(soft)
        else:
            self.register_buffer("labels", soft)
        self._count()
        self.register_load_state_dict_post_hook(self._count)  # type: ignore[no-untyped-call]
        self.step_size = None if step_size is None else nn.Parameter(values.new_tensor(float(step_size)))

    @property
    def copies(self) -> int:
        """Images in the batch for each stored one."""
        return self.formation.repeats * (2 if self.mirrored else 1)

    @property
    def kind_of_labels(self) -> str:
        """``"hard"``, ``"soft"`` or ``"learned"``."""
        if self.labels is None:
            return "hard"
        return "learned" if isinstance(self.labels, nn.Parameter) else "soft"

    def forward(self) -> Batch:
        """The training batch: images ``[n * copies, c, h, w]`` and labels, both sorted by class."""
        x = self.formation.decode(self.values)
        if self.labels is None:
            y = self.classes.repeat_interleave(self.formation.repeats)
        else:
            y = self.labels.softmax(1) if self.logits else self.labels
        if self.mirrored:
            x = torch.stack([x, x.flip(-1)], 1).flatten(0, 1)
            y = y.repeat_interleave(2, 0)
        return Batch(x, y)

    def shifted(self, delta: Mapping[str, Tensor]) -> Batch:
        """The batch with parameters moved by `delta` (by parameter name, e.g. ``{"values": noise}``), which stay as
        they are.

        Raises:
            ValueError: If a name is not a parameter's.
        """
        return shifted(self, delta)

    def rows(self) -> dict[int, slice]:
        """Where each class lies in the batch, for the classes present."""
        places, start = {}, 0
        for c, count in self._counts.items():
            places[c] = slice(start, start + count * self.copies)
            start += count * self.copies
        return places

    def _count(self, *_: object) -> None:
        """Count the classes' images once, so that asking where they lie does not wait for the device."""
        counts: list[int] = torch.bincount(self.classes).tolist()
        self._counts = {c: count for c, count in enumerate(counts) if count}

    @torch.no_grad()
    def project_(self) -> None:
        """Apply the bound to the stored values and the floor to the step size, where there are any."""
        if self.bound is not None:
            self.values.copy_(self.bound(self.values))
        if self.step_size is not None and self.step_floor is not None:
            self.step_size.clamp_(min=self.step_floor)

    @classmethod
    def from_real(
        cls,
        data: Labelled,
        per_class: int | Sequence[int],
        generator: torch.Generator,
        *,
        formation: Formation | None = None,
        **options: object,
    ) -> Images:
        """Start from real images drawn at random from each class.

        Args:
            data: Where to draw from.
            per_class: Stored images for each class: one number, or one a class (0 leaves a class out).
            generator: Draws the images.
            formation: How stored values become images; a stored image starts from `repeats` real ones.
            options: As the class's.

        Raises:
            ValueError: If a class has fewer images than asked.
        """
        form = formation or Identity()
        index = []
        for c, count in enumerate(counts_per_class(per_class, data.num_classes)):
            members, need = data.members(c), count * form.repeats
            if len(members) < need:
                raise ValueError(
                    f"Class {data.classes[c]!r} has {len(members)} images, {need} are needed to "
                    "start from; ask for fewer per class."
                )
            index.append(members[torch.randperm(len(members), generator=generator)[:need].to(members.device)])
        return cls.from_index(data, torch.cat(index), formation=form, **options)

    @classmethod
    def from_index(
        cls, data: Labelled, index: Tensor, *, formation: Formation | None = None, **options: object
    ) -> Images:
        """Start from chosen real images, for instance a coreset's.

        Args:
            data: Where the images are.
            index: int64 ``[n * repeats]``: the images, those of one class next to each other in class order.
            formation: How stored values become images.
            options: As the class's.
        """
        form = formation or Identity()
        batch = data.batch(index)
        return cls(form.encode(batch.x), batch.y[:: form.repeats], formation=form, **options)  # type: ignore[arg-type]

    @classmethod
    def from_noise(
        cls, data: Labelled, per_class: int | Sequence[int], generator: torch.Generator, **options: object
    ) -> Images:
        """Start from standard normal values, as DC does.

        Args:
            data: Gives the classes, the images' shape and the device.
            per_class: Stored images for each class: one number, or one a class.
            generator: Draws the values.
            options: As the class's.
        """
        counts = torch.tensor(counts_per_class(per_class, data.num_classes))
        values = torch.randn((int(counts.sum()), *data.image_shape), generator=generator)
        classes = torch.arange(len(counts)).repeat_interleave(counts)
        return cls(values.to(data.device), classes.to(data.device), **options)  # type: ignore[arg-type]


def shifted(synthetic: nn.Module, delta: Mapping[str, Tensor]) -> Batch:
    """The batch of synthetic data with named parameters moved by `delta`, without changing them.

    Raises:
        ValueError: If a name is not a parameter's.
    """
    parameters = dict(synthetic.named_parameters())
    unknown = sorted(set(delta) - set(parameters))
    if unknown:
        raise ValueError(f"There is no parameter {unknown[0]!r} to shift; choose from {sorted(parameters)}.")
    return functional_call(synthetic, {name: parameters[name] + d for name, d in delta.items()}, ())


def counts_per_class(per_class: int | Sequence[int], classes: int) -> list[int]:
    """One count a class, from one number for all or a sequence.

    Raises:
        ValueError: If the counts do not fit the classes.

    Example:
        >>> counts_per_class(2, 3), counts_per_class([1, 0, 4], 3)
        ([2, 2, 2], [1, 0, 4])
    """
    counts = [per_class] * classes if isinstance(per_class, int) else [int(k) for k in per_class]
    if len(counts) != classes:
        raise ValueError(f"{len(counts)} counts were given for {classes} classes; give one number, or one a class.")
    if min(counts) < 0 or sum(counts) == 0:
        raise ValueError(f"Images per class are {counts}; give numbers of at least 0 that are not all 0.")
    return counts


def per_class_of(classes: Tensor, total: int) -> list[int]:
    """How many images or nodes stand for each of `total` classes; those of class -1 stand for none."""
    return torch.bincount(classes[classes >= 0], minlength=total).tolist()


def _check_images(values: Tensor, classes: Tensor, labels: Tensor | None, repeats: int) -> None:
    if values.dim() != 4 or not values.is_floating_point():
        raise ValueError(f"Values are {values.dtype} of shape {tuple(values.shape)}; give floats [n, c, h, w].")
    if classes.shape != values.shape[:1] or classes.dtype != torch.int64:
        raise ValueError(
            f"Classes have shape {tuple(classes.shape)}; give int64 [{len(values)}], one for each stored image."
        )
    if bool((classes[1:] < classes[:-1]).any()):
        raise ValueError("Classes are not sorted; sort the stored images by class.")
    if labels is not None and (labels.dim() != 2 or len(labels) != len(values) * repeats):
        raise ValueError(
            f"Labels have shape {tuple(labels.shape)}; give one row for each image, [{len(values) * repeats}, C]."
        )


def size_in_bytes(made: Images | Graph) -> int:
    """Bytes of what a synthetic set really spends: stored values, soft labels and step size (hard labels count 1
    byte each); not the edges of a graph.
    """
    soft = 0 if made.labels is None else made.labels.numel() * made.labels.element_size()
    hard = len(made.classes) if made.labels is None else 0
    step = 0 if made.step_size is None else made.step_size.element_size()
    return math.prod(made.values.shape) * made.values.element_size() + soft + hard + step
