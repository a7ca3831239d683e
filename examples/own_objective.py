"""A method of your own, a scalar whose gradient is yours: `python examples/own_objective.py [STEPS]`."""

import sys
from dataclasses import dataclass

import torch

import condensery as cd


@dataclass
class Attract:
    """Pull every image to its class's mean image: the simplest thing that is a condensation method."""

    real: cd.data.Labelled
    lr: float = 0.5

    def __call__(self, synthetic: cd.Images) -> torch.Tensor:
        x, y = synthetic()
        means = torch.stack([self.real.batch(self.real.members(c)).x.mean(0) for c in y.tolist()])
        value = (x - means).square().sum() / 2
        # Autograd of `value` would do here. Any other estimate of the gradient takes this way in:
        return cd.with_gradient(value, [x], [x.detach() - means])

    def optimizer(self, synthetic: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(synthetic.parameters(), lr=self.lr)


steps = int(sys.argv[1]) if len(sys.argv) > 1 else 8
generator = torch.Generator().manual_seed(0)
data = cd.data.digits()
images = cd.Images.from_noise(data.train, 1, generator)
method = Attract(data.train)
for step in cd.iterate(images, method, method.optimizer(images), steps=steps):
    print(f"step {step.number:3d}  distance to the class means {float(step.loss):.3g}")
