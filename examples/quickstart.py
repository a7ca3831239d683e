"""Condense the handwritten digits to one image a class: `python examples/quickstart.py [STEPS]`."""

import sys

import torch

import condensery as cd
from condensery import pictures

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
generator = torch.Generator().manual_seed(0)

data = cd.data.digits()
net = cd.Net(cd.nets.ConvNet(channels=1, classes=10, size=8, width=64))
images = cd.Images.from_real(data.train, 1, generator)
start = images.values.detach().clone()

cd.condense(images, cd.DM(net, data.train, generator), steps=steps)


def accuracy(x: torch.Tensor) -> float:
    """Test accuracy of one fresh network trained on ten images."""
    batch = cd.Batch(x, images.classes)
    trained = cd.fit(net, batch, cd.Recipe(epochs=200), torch.Generator().manual_seed(1))
    return cd.accuracy(trained, data.test)


condensed = images.values.detach()
print(f"ten real images:      {accuracy(start):.1%} of the test digits right")
print(f"ten condensed images: {accuracy(condensed):.1%}")

rows = [
    (title, data.preprocessing.inverse(x).clamp(0, 1), images.classes)
    for title, x in (("real", start), ("condensed", condensed))
]
print("picture:", pictures.save(pictures.strip(rows, data.classes), "digits.png"))
