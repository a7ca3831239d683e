"""DSA: gradient matching with differentiable siamese augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field

from condensery.data.augment import Siamese
from condensery.methods.dc import DC


@dataclass
class DSA(DC):
    """DC with one augmentation drawn for both sides (Zhao & Bilen, ICML 2021, https://arxiv.org/abs/2102.08259), eq. 4.

    The same transformation, with the same parameters, changes a class's real and synthetic images in a matching
    step; the passes over the synthetic set between two steps are augmented too. Without augmentation it is `DC`.

    Args:
        augment: The transformations; `Siamese.digits()` for handwriting, where a mirrored image is another one.
    """

    augment: Siamese | None = field(default_factory=Siamese.natural)
