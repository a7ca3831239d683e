"""Own the loop: log, validate, stop early, resume. `python examples/own_loop.py [STEPS] [FOLDER]`."""

import sys
from pathlib import Path

import torch

import condensery as cd

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "own-loop-snapshots")
every = max(1, steps // 10)

generator = torch.Generator().manual_seed(0)
data = cd.data.digits()
net = cd.Net(cd.nets.ConvNet(channels=1, classes=10, size=8, width=32))
images = cd.Images.from_real(data.train, 1, generator)
method = cd.DM(net, data.train, generator, batch_real=64)
optimizer = torch.optim.Adam(images.parameters(), lr=0.1)  # any optimizer will do
snapshots = cd.Snapshots(folder, run={"method": "DM", "seed": 0})  # killed and started again, it goes on

best, waited = 0.0, 0
for step in cd.iterate(images, method, optimizer, steps=steps, snapshots=snapshots):
    if step.number % every:
        continue
    trained = cd.fit(net, images(), cd.Recipe(epochs=100), torch.Generator().manual_seed(1))
    found = cd.accuracy(trained, data.validation)  # never the test split: this chooses
    print(f"step {step.number:5d}  loss {float(step.loss):8.2f}  validation {found:.1%}")
    best, waited = (found, 0) if found > best else (best, waited + 1)
    if waited == 3:
        print("no better for three looks: enough")
        break
