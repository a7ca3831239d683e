"""Draw docs/assets/digits.png, real and condensed digits: `examples/digits_picture.py [STEPS] [FILE]`."""

import sys

import torch

import condensery as cd
from condensery import pictures

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
file = sys.argv[2] if len(sys.argv) > 2 else "docs/assets/digits.png"

data = cd.data.digits()
net = cd.Net(cd.nets.ConvNet(channels=1, classes=10, size=8, width=64))
rows = []
for title, method in (("real", None), ("DC", cd.DC), ("DM", cd.DM)):
    generator = torch.Generator().manual_seed(0)
    images = cd.Images.from_real(data.train, 1, generator)
    if method is not None:
        cd.condense(images, method(net, data.train, generator, batch_real=64), steps=steps)
    pixels = data.preprocessing.inverse(images.values.detach()).clamp(0, 1)
    rows.append((title, pixels, images.classes))
print("picture:", pictures.save(pictures.strip(rows, data.classes), file))
