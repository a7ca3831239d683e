"""Time GCond of Emory-Melody/GraphSlim, unchanged, from a local checkout.

    python benchmarks/peer_graphslim.py --checkout GraphSlim --data DATA --nodes 70

Prints one JSON line. Wants what this library's benchmarks want and nothing else. Nothing is fetched, no file of the
checkout is changed, and the files that run must be those of the commit named below. Supplied at run time:

- Cora in the attributes that their loader would have filled, and first features drawn as by their `random`.
- Empty modules in place of what is imported and not used in the loop: ogb, dgl, torch_scatter, their coarsening,
  sparsification, conversion and evaluation. There is no evaluation on the way.
- `SparseTensor` and `matmul` of torch_sparse, an extension that has to be compiled: a stand-in in plain PyTorch. What
  the loop spends in its functions is measured (`stood_in_s`) and taken off the iteration (`cpu_s`), so that theirs is
  as if the extension took no time.

The settings are theirs for Cora (configs/gcond/cora.json): SGC, 20 steps of matching in an epoch and 15 of training
after each, both rates 1e-4. An iteration is one epoch. Which of its epochs move the structure (the first 10 of each 50)
is decided by their number, so the loop is given numbers that take turns.

With `--paced` the program prints "ready" before each epoch and waits for a line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import sys
import time
import types
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condensery.data.graph_pyg import planetoid
from peer_vico import Meter

REPOSITORY, COMMIT = "Emory-Melody/GraphSlim", "86382ce8988aa84f8f3b937e27baf0d359c7dc6c"
BLOBS = {
    "condensation/gcond.py": "0e15da99e3f5e9d5f1d0fed70efe3be43e0f2fcb",
    "condensation/gcond_base.py": "81413edad80b5f9fdfcfd97807b288cd5e5356ab",
    "condensation/utils.py": "82e4906356bda48c006f3258370da37738c23c87",
    "dataset/loader.py": "b5ec01a04f2d708a1351565775b87a4c77de92c4",
    "models/base.py": "c52ef1150b170fda629ec4e547ca9307522d5910",
    "models/layers.py": "33dca99d2b1d9f8cd2b1fa163d8cc3d6e7fd050a",
    "models/parametrized_adj.py": "f7bd0cebb08105d3c96859c6a8c31fdf9623dcd2",
    "models/sgc.py": "bceb87f3627d002972c929fef23c6cb6d7066aeb",
    "utils.py": "e99dee9fcd0a7711b7ca735622867a74bef54af9",
}
# Packages of theirs whose own __init__ imports everything; and modules, theirs and others, that the loop does not need.
PACKAGES = ("condensation", "models", "dataset")
EMPTY = {
    "graphslim.coarsening": (),
    "graphslim.sparsification": (),
    "graphslim.reduction": ("create_reducer",),
    "graphslim.dataset.convertor": ("ei2csr", "csr2ei", "from_dgl"),
    "graphslim.dataset.utils": ("save_reduced", "splits"),
    "graphslim.evaluation": (),
    "graphslim.evaluation.utils": (),
    "ogb": (),
    "ogb.nodeproppred": ("PygNodePropPredDataset",),
    "dgl": (),
    "dgl.data": ("FraudDataset",),
    "torch_scatter": ("scatter_add",),
}
STRUCTURE, FEATURES = 0, 10  # numbers of epochs that move the one and the other

# --- in place of torch_sparse
# -----------------------------------------------------------------------------------------


class Clock:
    """CPU seconds spent in stand-ins."""

    seconds = 0.0

    @classmethod
    def counted(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time taken down."""

        def called(*args: Any, **options: Any) -> Any:
            begun = time.process_time()
            try:
                return function(*args, **options)
            finally:
                cls.seconds += time.process_time() - begun

        return called


class Storage:
    """What PyTorch Geometric's sampler asks of a matrix's storage."""

    def __init__(self, value: Tensor | None) -> None:
        self._value = value

    def rowptr(self) -> None:
        """Nothing has to be prepared."""

    def value(self) -> Tensor | None:
        """The entries."""
        return self._value


class SparseTensor:
    """A sparse matrix by its coordinates, sorted by row."""

    def __init__(self, *, row: Tensor, col: Tensor, value: Tensor, sparse_sizes: Any) -> None:
        order = (row * int(sparse_sizes[1]) + col).argsort()
        self.row, self.col, self.value = row[order], col[order], value[order]
        self.sizes = tuple(int(size) for size in sparse_sizes)
        self.storage = Storage(self.value)
        self.counts = torch.bincount(self.row, minlength=self.sizes[0])
        self.starts = self.counts.cumsum(0) - self.counts

    def t(self) -> SparseTensor:
        """The transpose."""
        return SparseTensor(row=self.col, col=self.row, value=self.value, sparse_sizes=self.sizes[::-1])

    def to(self, _: Any) -> SparseTensor:
        """Itself: there is one device."""
        return self

    def size(self, dim: int) -> int:
        """Rows or columns."""
        return self.sizes[dim]

    def sparse_sizes(self) -> tuple[int, ...]:
        """Both."""
        return self.sizes

    def sample_adj(self, nodes: Tensor, size: int, replace: bool) -> tuple[SparseTensor, Tensor]:
        """At most `size` entries of each of some rows; the columns are renumbered, those rows first."""
        assert not replace
        counts = self.counts[nodes]
        row = torch.arange(len(nodes)).repeat_interleave(counts)
        first = counts.cumsum(0) - counts
        entry = torch.arange(len(row)) - first[row] + self.starts[nodes][row]
        order = (row + torch.rand(len(row), dtype=torch.float64)).argsort()
        kept = order[torch.arange(len(row)) - first[row] < size]
        row, entry = row[kept], entry[kept]
        reached = self.col[entry]
        place = torch.full((self.sizes[1],), -1)
        place[nodes] = torch.arange(len(nodes))
        new = reached[place[reached] < 0].unique()
        place[new] = torch.arange(len(nodes), len(nodes) + len(new))
        every = torch.cat([nodes, new])
        sizes = (len(nodes), len(every))
        return SparseTensor(row=row, col=place[reached], value=self.value[entry], sparse_sizes=sizes), every


def matmul(matrix: SparseTensor, x: Tensor) -> Tensor:
    """The product with a dense matrix."""
    return x.new_zeros((matrix.sizes[0], x.shape[1])).index_add(0, matrix.row, x[matrix.col] * matrix.value[:, None])


def stand_in_for_torch_sparse() -> None:
    """Put the above where torch_sparse is looked for."""
    module = types.ModuleType("torch_sparse")
    SparseTensor.sample_adj = Clock.counted(SparseTensor.sample_adj)  # type: ignore[method-assign]
    module.SparseTensor, module.SparseStorage = SparseTensor, Storage  # type: ignore[attr-defined]
    module.matmul = Clock.counted(matmul)  # type: ignore[attr-defined]
    for name in ("fill_diag", "mul", "sum", "set_diag"):
        setattr(module, name, None)
    sys.modules["torch_sparse"] = module


# --- their code
# -------------------------------------------------------------------------------------------------------


def verify(checkout: Path) -> None:
    """Refuse files that are not those of the commit, by git's own ids."""
    for name, wanted in BLOBS.items():
        content = (checkout / "graphslim" / name).read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != wanted:
            raise SystemExit(f"{checkout / 'graphslim' / name} is not that of commit {COMMIT}: check that commit out")


def load(checkout: Path) -> tuple[Any, Any]:
    """Their modules of GCond and of the loader, with stand-ins for what they import."""
    verify(checkout)
    sys.dont_write_bytecode = True
    stand_in_for_torch_sparse()
    for name, attributes in EMPTY.items():
        sys.modules[name] = module = types.ModuleType(name)
        for attribute in attributes:
            setattr(module, attribute, None)
    sys.modules["graphslim.evaluation.utils"].verbose_time_memory = lambda function: function  # type: ignore[attr-defined]
    for name in ("", *PACKAGES):
        whole = ".".join(["graphslim", name]).rstrip(".")
        sys.modules[whole] = package = types.ModuleType(whole)
        package.__path__ = [str(checkout / "graphslim" / name)]
    models = sys.modules["graphslim.models"]
    models.PGE = importlib.import_module("graphslim.models.parametrized_adj").PGE  # type: ignore[attr-defined]
    models.SGC = importlib.import_module("graphslim.models.sgc").SGC  # type: ignore[attr-defined]
    return importlib.import_module("graphslim.condensation.gcond"), importlib.import_module("graphslim.dataset.loader")


def cora(loader: Any, folder: Path) -> Any:
    """Cora as their loader holds it."""
    import scipy.sparse as sp

    found = planetoid(folder, "cora")
    data = object.__new__(loader.TransAndInd)
    rows, columns = found.edges.numpy()
    data.adj_full = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(found.num_nodes,) * 2)
    data.feat_full, data.labels_full, data.nclass = found.x, found.y, found.num_classes
    data.idx_train = found.train.numpy()
    data.feat_train, data.labels_train = found.x[found.train], found.train_y
    data.class_dict2 = data.samplers = None
    return data


def settings(options: argparse.Namespace, data: Any) -> Namespace:
    """Theirs for Cora."""
    rates = {"lr_feat": 1e-4, "lr_adj": 1e-4, "lr": 0.01, "weight_decay": 0.0, "dropout": 0.0, "alpha": 0.0}
    loops = {"outer_loop": 20, "inner_loop": 15, "epochs": 0, "checkpoints": [], "verbose": False}
    model = {"condense_model": "SGC", "nlayers": 2, "ntrans": 1, "hidden": 256, "with_bn": False, "metric": None}
    what = {"method": "gcond", "dataset": "cora", "setting": "trans", "dis_metric": "ours", "multi_label": False}
    ratio = options.nodes / len(data.idx_train)
    return Namespace(**rates, **loops, **model, **what, device="cpu", reduction_rate=ratio, init="random")


def measure(options: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """Run their reduce on epochs that take turns."""
    gcond, loader = load(options.checkout)
    data = cora(loader, options.data)
    reducer = gcond.GCond("trans", data, settings(options, data))
    labels = torch.from_numpy(reducer.labels_syn)
    members = [torch.from_numpy(data.idx_train)[data.labels_train == c] for c in labels.unique()]
    places = {int(c): iter(m.tolist()) for c, m in zip(labels.unique(), members, strict=True)}
    first = data.feat_full[[next(places[int(c)]) for c in labels]]
    reducer.init = lambda: first

    def epochs(_: int) -> Iterator[int]:
        """The numbers of the epochs; the clock is read between two."""
        number = FEATURES
        meter.begin()
        while True:
            begun = Clock.seconds
            yield number
            spent = round(Clock.seconds - begun, 4)
            if meter.lap(structure=number == STRUCTURE, stood_in_s=spent):
                return
            number = STRUCTURE if number == FEATURES else FEATURES

    gcond.trange = epochs
    torch.manual_seed(0)
    reducer.reduce(data, verbose=False)
    return {"code": REPOSITORY, "commit": COMMIT, "nodes": options.nodes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help=f"{REPOSITORY} at commit {COMMIT[:8]}")
    parser.add_argument("--data", type=Path, required=True, help="the folder with Cora's raw files, or one above it")
    parser.add_argument("--nodes", type=int, default=70)
    parser.add_argument("--iterations", type=int, default=6, help="measured epochs, after one of warm-up")
    parser.add_argument("--paced", action="store_true", help="wait for a line before each epoch")
    options = parser.parse_args()
    options.checkout = options.checkout.resolve()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    meter = Meter(options.iterations, paced=options.paced)
    with contextlib.redirect_stdout(io.StringIO()):
        what = measure(options, meter)
    for lap in (*meter.laps,):
        lap["cpu_s"] = round(lap["cpu_s"] - lap["stood_in_s"], 4)
    print(json.dumps(meter.result(**what)))


if __name__ == "__main__":
    main()
