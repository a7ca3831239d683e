"""Layers whose derivatives are the library's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from condensery.nets import layers
from support import generator


@pytest.mark.parametrize(("h", "w"), [(4, 4), (5, 4), (5, 7)])
def test_the_mean_of_squares_and_its_derivatives_of_any_order(h: int, w: int) -> None:
    """The double backward pass is the library's own: PyTorch's would go channel by channel."""
    x = torch.randn(2, 3, h, w, dtype=torch.float64, generator=generator(), requires_grad=True)
    mean = layers._Mean.apply
    assert torch.allclose(mean(x), F.avg_pool2d(x, 2), rtol=1e-14)
    assert torch.autograd.gradcheck(mean, (x,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(mean, (x,), check_fwd_over_rev=True, check_rev_over_rev=True)
    cube = torch.func.hessian(lambda t: mean(t).pow(3).sum())(x.detach())
    plain = torch.func.hessian(lambda t: F.avg_pool2d(t, 2).pow(3).sum())(x.detach())
    assert torch.allclose(cube, plain, rtol=1e-12)
    part = torch.randn(2, 3, h, w, generator=generator())
    assert torch.allclose(layers.AvgPool()(part), F.avg_pool2d(part, 2), rtol=1e-6)
