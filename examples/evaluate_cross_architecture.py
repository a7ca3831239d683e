"""Does the set serve other networks? `python examples/evaluate_cross_architecture.py [STEPS] [NETWORKS]`."""

import sys

import torch

import condensery as cd
from condensery.evaluate.transfer import Trials

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
n = int(sys.argv[2]) if len(sys.argv) > 2 else 5

generator = torch.Generator().manual_seed(0)
data = cd.data.digits()
network = cd.nets.ConvNet(channels=1, classes=10, size=8, width=64)
images = cd.Images.from_real(data.train, 1, generator)
cd.condense(images, cd.DM(cd.Net(network), data.train, generator), steps=steps)

artifact = cd.Artifact(
    images,
    classes=data.classes,
    preprocessing=data.preprocessing,
    recipe=cd.Recipe(epochs=200),
    network=cd.nets.describe(network),
    dataset=data.name,
    method="DM",
)
shape = {"channels": 1, "classes": 10, "size": 8}
others = [network, cd.nets.MLP(**shape), cd.nets.ConvNet(**shape, width=64, norm="batch")]
scores = cd.evaluate.transfer(artifact, data, networks=others, trials=Trials(n=n))
for row in scores.rows:
    print(f"{row.name:14s} {row.network:34s} {row.last}")
