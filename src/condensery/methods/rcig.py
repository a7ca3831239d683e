"""RCIG: reparameterised convexified implicit gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from condensery.bilevel import clip_indirect
from condensery.methods.linearised import Convexified, Found, Task
from condensery.methods.regression import margin as margin_of


@dataclass
class RCIG(Convexified):
    """Reparameterised convexified implicit gradients (Loo et al., ICML 2023, https://arxiv.org/abs/2302.06755),
    algorithm 1.

    A network of a pool is replaced by its centred tangent model: J(x) u in its body's parameters, phi(x) w in its
    head's, phi its features. On the synthetic set (X, Y) the best head is known for any u (eq. 3 and 4),

        w(u) = phi(X)^T (phi(X) phi(X)^T + lambda I)^-1 (Y - J(X) u),

    so that the inner problem is one in u alone (eq. 5), and the outer loss of f(T) = J(T) u + phi(T) w(u) at real
    images T depends on the set in two ways: at fixed u through w (the *direct* gradient, FRePo's), and through u* (the
    *indirect* one).

    Args:
        net: The architecture.
        real: The real training images.
        generator: A CPU generator for networks, real batches and subsets.
        batch_real: Real images of a step.
        ridge: lambda for each stored image (before mirroring): 5e-4 at depth 3, 5e-3 at 4, 5e-2 at 5.
        loss: Outer loss (eq. 6).
        lr_images: AdaBelief's learning rate of the images.
        lr_labels: Of the labels, where they are learned.
        lr_temperature: For the temperature, where the loss learns one.
        ema: Decay of the average that is the result, or ``None`` for the last iterate.
        pool_size: Networks in the pool.
        life: Steps after which one starts anew.
        pool_steps: At most how many steps a drawn network is trained on the set.
        lr_pool: Adam's learning rate there.
        backward: Differentiate for this many examples of the set, drawn anew in each step, and multiply by n / k:
            the same gradient on average (section 3.6), if it is not clipped; ``None`` for all. Not with batch
            normalisation.
        solver: `Descent` (the paper's) or `Dual` (exact).
        precision: Lower precision for products with J, on real images and in both solves; what is left of their error
            in the gradient is one or two per cent with ``torch.bfloat16``. The derivative in the images and the head's
            kernel keep full precision.
        margin: Learned labels are kept this far apart, in units of 1 / C (`regression.margin`); 0 for not.
        clip: Whether the indirect part is shortened to the direct one's norm, in the images and in the labels.
    """

    margin: float = 0.5
    clip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin < 0:
            raise ValueError(f"The margin is {self.margin}; give a number of at least 0.")

    @property
    def _apart(self) -> bool:
        return True

    @property
    def _split(self) -> bool:
        return self.clip

    def _find(self, task: Task) -> Found:
        found = super()._find(task)
        if not self.margin:
            return found
        leaf = task.y.clone().requires_grad_()
        with torch.enable_grad():
            term = margin_of(leaf, self.margin / leaf.shape[1])
        (slope,) = torch.autograd.grad(term, leaf)
        direct = [found.direct[0], found.direct[1] - slope]
        return found._replace(value=found.value - term.detach(), direct=direct)

    def _joined(self, direct: list[Tensor], indirect: list[Tensor]) -> list[Tensor]:
        if not self.clip:
            return super()._joined(direct, indirect)
        norms = [torch.stack([p.norm() for p in part]).norm() for part in (direct, indirect)]
        self.figures["indirect_to_direct"] = norms[1] / norms[0]
        return super()._joined(direct, clip_indirect(direct, indirect))
