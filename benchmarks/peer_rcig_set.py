"""Write the condensed set that RCIG's authors publish with their code, for `kernels.py published`.

    python benchmarks/peer_rcig_set.py RCIG/distilled_images_final/0/cifar10_1/checkpoint_15000 rcig.npz

Wants a Python with flax (0.6.11 was used). The file is msgpack, which runs no code. What is written is the average of
the set, the one that they evaluate: `images` [n, c, h, w], whitened as they whiten, `labels` [n, C], and `source`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main() -> None:
    from flax.serialization import msgpack_restore

    checkpoint, target = map(Path, sys.argv[1:])
    state = msgpack_restore(checkpoint.read_bytes())
    average = state["ema_average"]
    images = np.ascontiguousarray(np.asarray(average["x_proto"]).transpose(0, 3, 1, 2))
    source = "/".join(("yolky/RCIG", *checkpoint.parts[-4:]))
    np.savez(target, images=images, labels=np.asarray(average["y_proto"]), source=source)
    print(f"{target}: {len(images)} images after {int(state['step']):,} steps")


if __name__ == "__main__":
    main()
