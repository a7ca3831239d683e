"""Condense the digits as graphs of their pixels with DosCond, and compare with selections of whole graphs.

    OMP_NUM_THREADS=1 python benchmarks/graph_sets.py --ipc 1 10 --steps 600

PooledGCN, 3 layers of width 128, for condensing and testing; DosCond's test of 500 passes. Herding and k-center see the
embeddings of a network that was trained on all graphs. Random: a new subset for each network. Prints rows and writes
benchmarks/results/graph-sets.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import condensery as cd
from condensery.coresets import herding, k_center, uniform
from condensery.data.graph_sets import GraphSet, digit_graphs
from condensery.evaluate.whole_graphs import GraphRecipe, fit_graphs, graph_embeddings, score_graphs
from condensery.graphs import Graphs
from condensery.loop import iterate
from condensery.methods.doscond_graphs import DosCondGraphs
from condensery.nets.pooled import PooledGCN
from condensery.store import write_text
from speed import host

HERE = Path(__file__).parent


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def condensed(net: cd.Net, data: GraphSet, ipc: int, options: argparse.Namespace) -> tuple[GraphSet, dict[str, Any]]:
    """DosCond's set, and what it took."""
    nodes = round(float(data.sizes[data.train].float().mean()))
    graphs = Graphs.from_real(data, [ipc] * data.num_classes, nodes, generator(options.seed))
    method = DosCondGraphs(
        net, data, generator(options.seed), batch_real=options.batch_real, lr_structure=options.lr_structure
    )
    start, before = time.process_time(), graphs.discrete()
    for step in iterate(graphs, method, method.optimizer(graphs), steps=options.steps):
        if step.number % 50 == 0:
            print(f"ipc {ipc} step {step.number} loss {float(step.loss):.4f}", flush=True)
    seconds = (time.process_time() - start) / options.steps
    changed = float((graphs.discrete() != before).float().mean())
    made = {"steps": options.steps, "batch_real": options.batch_real, "lr_structure": options.lr_structure}
    return graphs.to_set(data), {**made, "cpu_seconds_a_step": seconds, "edges_changed": changed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ipc", nargs="*", type=int, default=[1, 10])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-real", type=int, default=64)
    parser.add_argument("--lr-structure", type=float, default=0.1)
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument(
        "--full-epochs", type=int, default=30, help="of the networks on all graphs, of which one embeds"
    )
    parser.add_argument("--check-every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="add rows of DosCond alone to the output")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "graph-sets.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = digit_graphs()
    net = cd.Net(PooledGCN(features=data.num_features, classes=data.num_classes))
    recipe = GraphRecipe(check_every=options.check_every)
    kept = {key: value for key, value in vars(options).items() if key not in ("output", "add")}
    long = GraphRecipe(epochs=options.full_epochs, batch=64, lr=3e-3)
    facts: dict[str, Any] = {"host": host(), "data": repr(data), "options": kept, "rows": []}
    if options.add:
        facts = json.loads(options.output.read_text())

    def report(ipc: int | None, name: str, train: Any, recipe: GraphRecipe, **more: Any) -> None:
        row = score_graphs(name, net, train, data, recipe, n=options.n, seed=options.seed).to_json()
        facts["rows"].append({"ipc": ipc, **more, "row": row})
        print(ipc, name, row["last"], flush=True)
        write_text(options.output, json.dumps(facts, indent=1) + "\n")

    for ipc in options.ipc:
        made, cost = condensed(net, data, ipc, options)
        report(ipc, "DosCond", made, recipe, **cost)
    if options.add:
        return
    fitted = fit_graphs(net, data, long, generator(options.seed))
    seen, y = graph_embeddings(net, fitted.last, data, data.train), data.train_y
    for ipc in options.ipc:
        drawn = [uniform(None, y, ipc, generator=generator(options.seed + i)) for i in range(options.n)]
        report(ipc, "random subset", [data.subset(data.train[index]) for index in drawn], recipe)
        report(ipc, "Herding", data.subset(data.train[herding(seen, y, ipc)]), recipe)
        report(ipc, "k-center", data.subset(data.train[k_center(seen, y, ipc, generator=generator())]), recipe)
    report(None, "full data", data, long)


if __name__ == "__main__":
    main()
