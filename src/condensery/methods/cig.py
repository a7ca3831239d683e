"""CIG: convexified implicit gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

from condensery.methods.linearised import Convexified
from condensery.methods.regression import OuterLoss, Squared


@dataclass
class CIG(Convexified):
    """Convexified implicit gradients (Loo et al., ICML 2023, https://arxiv.org/abs/2302.06755), section 3.2.

    A network of a pool is replaced by its centred tangent model J(x) u, in all of its parameters. With (X, Y) the
    synthetic set and T real images,

        u* = argmin 1/2 |Y - J(X) u|^2 + lambda/2 |u|^2,        loss = outer(J(T) u*),

    and the gradient is the implicit one, the only one: the loss sees the set through u* alone. Its inner problem is
    strongly convex, which that of `VIG` is not. Solved exactly (`Dual`) it is RCIG's, but for the head's bias.

    Args:
        net: The architecture.
        real: The real training images.
        generator: A CPU generator for networks, real batches and subsets.
        batch_real: Real images of a step.
        ridge: lambda for each stored image (before mirroring).
        loss: Outer loss; the squared error here, as in the inner problem: the paper comes to Platt's with RCIG.
        lr_images: AdaBelief's learning rate of the images.
        lr_labels: Of the labels, where they are learned.
        lr_temperature: For the temperature, where the loss learns one.
        ema: Decay of the average that is the result, or ``None`` for the last iterate.
        pool_size: Networks in the pool.
        life: Steps after which one starts anew.
        pool_steps: At most how many steps a drawn network is trained on the set.
        lr_pool: Adam's learning rate there.
        backward: Differentiate for this many examples of the set in each step (see `RCIG`).
        solver: `Descent` (the paper's) or `Dual` (exact).
        precision: Lower precision for products with J, on real images and in both solves; what is left of their error
            in the gradient is one or two per cent with ``torch.bfloat16``. The derivative in the images keeps full
            precision.
    """

    loss: OuterLoss = field(default_factory=Squared)
