"""Coarsen graphs of nodes and train the literature's GCN on them, beside random subgraphs of as many nodes.

    OMP_NUM_THREADS=1 python benchmarks/coarsening.py

Cora (from CONDENSERY_DATA) at its published sizes, and the digits' graph. GCN of width 256 and depth 2, 600 steps; last
step, and the one chosen on the real validation nodes. Writes benchmarks/results/graphs-coarsening.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import condensery as cd
from condensery.coresets import graphs as coresets
from condensery.coresets.coarsening import coarsen
from condensery.data import planetoid
from condensery.data.graphs import GraphData, digits_graph
from condensery.evaluate.nodes import NodeRecipe, Nodes, score_nodes
from condensery.graph import class_counts
from condensery.nets.graph import GCN, Start
from condensery.store import write_text
from speed import host

HERE = Path(__file__).parent
SIZES = {"cora": (35, 70, 140), "digits": (20, 100)}


def random_subgraphs(data: GraphData, total: int, n: int) -> list[Nodes]:
    """Induced subgraphs of random training nodes, in the proportions of the classes."""
    counts = class_counts(data.train_y, total)
    drawn = (coresets.random(data, counts, generator=torch.Generator().manual_seed(seed)) for seed in range(n))
    return [Nodes.training(data.subgraph(index)) for index in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--check-every", type=int, default=10)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "graphs-coarsening.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    recipe = NodeRecipe(check_every=options.check_every)
    for name in options.data:
        data = planetoid(name=name) if name == "cora" else digits_graph()
        net = cd.Net(GCN(features=data.num_features, classes=data.num_classes, width=256, start=Start.FAN_IN))
        for total in SIZES[name]:
            found = coarsen(data, total, generator=torch.Generator().manual_seed(0)).data
            sets = {
                "coarsening": [Nodes.training(found)] * options.n,
                "random subset": random_subgraphs(data, total, options.n),
            }
            for title, nodes in sets.items():
                row = score_nodes(title, net, nodes, data, recipe).to_json()
                labelled = len(found.train) if title == "coarsening" else total
                rows.append({"data": name, "nodes": total, "labelled": labelled, "row": row})
                print(name, total, title, row["last"], row["chosen"], flush=True)
                facts = {"host": host(), "check_every": options.check_every, "rows": rows}
                write_text(options.output, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
