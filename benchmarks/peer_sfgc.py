"""Time an iteration of the authors' public code of SFGC, unchanged, from a local checkout, or of this library's.

    python benchmarks/peer_sfgc.py --checkout SFGC --nodes 70 --steps 50
    python benchmarks/peer_sfgc.py --ours --nodes 70 --steps 50

Prints one JSON line. An iteration is an outer iteration on Cora's shape: `--steps` steps of a GCN (2 layers, width 256)
on `--nodes` condensed nodes, the gradient in their features and the step size, and the two optimizers' steps.
Nothing is fetched, no file of the checkout is changed, and the files that run must be those of the commit named below
(Amanda-Zheng/SFGC). What they need is supplied at run time: deeprobust, torch_sparse and their own `utils` are stood in
for by the few functions that the loop calls; features are random, experts random parameters near a fresh network's, in
the format that their class loads: neither changes how much is computed. Their scoring of sets is off, and is not
part of ours. The first iteration of both is not counted. With `--paced` the program prints "ready" before each
iteration and waits for a line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator

from condensery.data.graphs import Split, graph_data
from condensery.experts import Held
from condensery.graph import Graph, class_counts
from condensery.loop import iterate
from condensery.memory import keep_freed_memory
from condensery.methods.sfgc import SFGC
from condensery.net import Net
from condensery.nets.graph import GCN, Start
from peer_trajectories import limit
from peer_vico import Done, Meter

REPOSITORY, COMMIT = "Amanda-Zheng/SFGC", "b034621b8e39eba7aa58ec009963a3071cd87079"
BLOBS = {
    "metagtt_transduct_adj_identity.py": "9993b13c4b0698eafbd0be26ad681e660ff84712",
    "models/gcn.py": "04027d107b2fb9711dfcf08f0ab18d871a888f57",
    "models/reparam_module.py": "81bb65d1177b1ef04f79e51e92f8d1e7db1b6433",
}
NODES, FEATURES, CLASSES, WIDTH, TRAIN = 2708, 1433, 7, 256, 140
POINTS = 12  # of an expert: starts are its point 0, targets ten points later


def verify(checkout: Path) -> None:
    """Refuse files that are not those of the commit, by git's own ids."""
    for name, wanted in BLOBS.items():
        content = (checkout / name).read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != wanted:
            raise SystemExit(f"{checkout / name} is not that of commit {COMMIT}: check that commit out")


# --- theirs
# -----------------------------------------------------------------------------------------------------------------


def stand_ins() -> None:
    """Modules that their files import, with what the loop calls of them."""

    def to_tensor(*values: Any, device: str) -> list[torch.Tensor]:
        return [torch.as_tensor(value, device=device) for value in values]

    def normalised(adjacency: torch.Tensor, sparse: bool = False) -> torch.Tensor:
        whole = adjacency.to_dense() + torch.eye(len(adjacency))
        scale = whole.sum(1).rsqrt()
        return scale[:, None] * whole * scale

    def accuracy(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (output.argmax(1) == labels.view(-1)).double().mean()

    utils = _module("deeprobust.graph.utils", to_tensor=to_tensor, normalize_adj_tensor=normalised, accuracy=accuracy)
    _module("deeprobust.graph", utils=utils)
    _module("deeprobust", graph=sys.modules["deeprobust.graph"])
    _module("torch_sparse", SparseTensor=type("SparseTensor", (), {}))
    _module("utils", get_eval_pool=lambda *_: [])


def _module(name: str, **content: Any) -> types.ModuleType:
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(content)
    return module


class Writer:
    """Stands in for their TensorBoard writer, and reads the clock where an iteration's last figure is written."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def add_scalar(self, name: str, *_: Any) -> None:
        """Told of each figure."""
        if name == "grand_loss_curve" and not self.meter.running:
            self.meter.begin()
        elif name == "grand_loss_curve" and self.meter.lap():
            raise Done


def theirs(options: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """Run their class's loop until enough is measured."""
    verify(options.checkout)
    stand_ins()
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(options.checkout))
    from metagtt_transduct_adj_identity import MetaGtt

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = types.SimpleNamespace(**settings_of(options, folder))
        write_files(Path(folder), options.nodes)
        agent = MetaGtt(their_data(), settings, device="cpu")
        with contextlib.suppress(Done):
            agent.distill(Writer(meter))
    return meter.result(code=REPOSITORY, commit=COMMIT)


def settings_of(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Their settings of Cora, without looks on the way."""
    model = {"condense_model": "GCN", "student_hidden": WIDTH, "student_dropout": 0.0, "student_nlayers": 2}
    rates = {"optimizer_con": "Adam", "lr_feat": 1e-4, "lr_student": 0.5, "optim_lr": 1, "lr_lr": 1e-6}
    files = {"buffer_path": folder, "coreset_init_path": folder, "coreset_method": "kcenter", "coreset_seed": 0}
    ways = {"rand_start": 1, "interval_buffer": 1, "start_epoch": 0, "expert_epochs": 100, "load_all": False}
    rest = {"max_files": None, "max_experts": None, "eval_type": "S", "eval_model": "GCN", "eval_interval": 10**9}
    share = {"dataset": "cora", "reduction_rate": options.nodes / TRAIN, "optimizer_lr": "SGD", "seed_student": 0}
    return {
        **model,
        **rates,
        **files,
        **ways,
        **rest,
        **share,
        "syn_steps": options.steps,
        "ITER": 900,
        "log_dir": folder,
    }


def their_data() -> Any:
    """A graph of Cora's shape with random features and no edges: the graph is not in the loop."""
    g = Generator().manual_seed(0)
    features = torch.rand(NODES, FEATURES, generator=g).numpy()
    labels = (torch.arange(NODES) % CLASSES).numpy()
    train = np.arange(TRAIN)
    return types.SimpleNamespace(
        feat_train=features[train],
        feat_full=features,
        adj_full=np.zeros((NODES, NODES), dtype=np.float32),
        labels_full=labels,
        nclass=CLASSES,
        idx_test=np.arange(NODES - 10, NODES),
    )


def write_files(folder: Path, nodes: int) -> None:
    """Experts and selected nodes as their class loads them."""
    shapes = [(FEATURES, WIDTH), (WIDTH,), (WIDTH, CLASSES), (CLASSES,)]
    first = [torch.rand(shape) / 20 for shape in shapes]
    expert = [[p + 1e-3 * k * torch.randn_like(p) for p in first] for k in range(POINTS)]
    torch.save([expert], folder / "replay_buffer_0.pt")
    np.save(folder / f"idx_cora_{nodes / TRAIN}_kcenter_0.npy", np.arange(nodes))


# --- ours
# -------------------------------------------------------------------------------------------------------------------


def ours(options: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """The same with this library."""
    keep_freed_memory()
    g = Generator().manual_seed(0)
    x, y = torch.rand(NODES, FEATURES, generator=g), torch.arange(NODES) % CLASSES
    parts = torch.arange(NODES).split([TRAIN, NODES - TRAIN - 10, 10])
    data = graph_data("cora's shape", x, torch.zeros((2, 0), dtype=torch.int64), y, split=Split(*parts))
    net = Net(GCN(features=FEATURES, classes=CLASSES, width=WIDTH, start=Start.FAN_IN))
    theta = net.init(g)
    way = torch.stack([theta + 1e-3 * k * torch.randn(theta.shape, generator=g) for k in range(POINTS)])
    method = SFGC(net, Held(way[None]), g, inner_steps=options.steps, expert_epochs=10, max_start=1)
    graph = Graph.from_real(data, class_counts(data.train_y, options.nodes), g, step_size=0.5)
    for _ in iterate(graph, method, method.optimizer(graph), steps=900):
        if not meter.running:
            meter.begin()
        elif meter.lap():
            break
    return meter.result(code="condensery")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, help="the authors' repository, at its commit above")
    parser.add_argument("--ours", action="store_true", help="this library instead")
    parser.add_argument("--nodes", type=int, default=70)
    parser.add_argument("--steps", type=int, default=50, help="of the inner training")
    parser.add_argument("--iterations", type=int, default=2, help="measured ones, after one of warm-up")
    parser.add_argument("--memory-mb", type=int, help="fail rather than take more than this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--paced", action="store_true", help="wait for a line before each iteration")
    options = parser.parse_args()
    if options.ours == (options.checkout is not None):
        parser.error("give the checkout or --ours")
    if options.checkout:
        options.checkout = options.checkout.resolve()
    return options


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore")
    if options.memory_mb:
        limit(options.memory_mb)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    meter = Meter(options.iterations, paced=options.paced)
    result = (ours if options.ours else theirs)(options, meter)
    print(json.dumps({"method": "SFGC", "nodes": options.nodes, "inner_steps": options.steps, **result}))


if __name__ == "__main__":
    main()
