"""Choose real images instead of learning some, and compare: `python examples/coreset.py [EPOCHS]`."""

import sys

import torch

import condensery as cd

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
per_class = 5
data = cd.data.digits()
net = cd.Net(cd.nets.ConvNet(channels=1, classes=10, size=8, width=32))
x, y = data.train.whole()

# Features of a network that was trained briefly on everything; pixels (x.flatten(1)) work as well.
proxy = cd.fit(net, data.train, cd.Recipe(epochs=max(1, epochs // 20)), torch.Generator().manual_seed(0))
with torch.no_grad():
    features = net.embed(proxy.theta, x)

generator = torch.Generator().manual_seed(0)
chosen = {
    "uniform": cd.coresets.uniform(features, y, per_class, generator=generator),
    "herding": cd.coresets.herding(features, y, per_class, generator=generator),
    "k-center": cd.coresets.k_center(features, y, per_class, generator=generator),
    "facility location": cd.coresets.facility_location(features, y, per_class, generator=generator),
}
for name, index in chosen.items():
    images = cd.Images.from_index(data.train, index)  # as good a start for condensing as random ones
    trained = cd.fit(net, images(), cd.Recipe(epochs=epochs), torch.Generator().manual_seed(1))
    print(f"{name:18s} {cd.accuracy(trained, data.test):.1%} of the test digits right")
