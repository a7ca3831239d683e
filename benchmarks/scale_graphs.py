"""Time and memory of one outer step of GCond against the size of the graph.

    OMP_NUM_THREADS=1 python benchmarks/scale_graphs.py --data ogbn_arxiv_structure.npz

The structure, labels and split of ogbn-arxiv, parts of it grown around a node, and disjoint copies of it; 128 features
drawn at random, which cost the same. 90 synthetic nodes (0.05 %) with GCond's pairwise structure. Three forms: a GCN on
sampled neighbourhoods, the same on whole ones, and an SGC, whose real side is propagated once. Each measurement is a
process of its own. Prints a table and writes benchmarks/results/graphs-scale.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import condensery as cd
from condensery.data.graph_batches import ClassBatches
from condensery.data.graphs import GraphData, Split, graph_data
from condensery.graph import Graph, PairwiseMlp, class_counts
from condensery.loop import iterate
from condensery.methods.gcond import GCond
from condensery.nets.graph import GCN, SGC, GraphNet, Start
from condensery.store import write_text
from peer_vico import resident
from speed import host
from trajectories import forget_peak, peak

HERE = Path(__file__).parent
FEATURES, SYNTHETIC, BATCH = 128, 90, 256
SAMPLED, WHOLE, LINEAR = "sampled", "whole", "linear"
FANOUTS: dict[str, Sequence[int | None]] = {SAMPLED: (10, 5), WHOLE: (None, None), LINEAR: (10, 5)}


def part(path: Path, nodes: int, copies: int) -> GraphData:
    """The first nodes found from node 0 breadth-first, with the edges among them; or copies of all of them."""
    file = np.load(path)
    edges = torch.from_numpy(np.stack([file["src"], file["dst"]])).long()
    y, split = torch.from_numpy(file["y"]).long(), torch.from_numpy(file["split"])
    n = len(y)
    if nodes < n:
        place = torch.full((n,), -1)
        found = grown(edges, n, nodes)
        place[found] = torch.arange(len(found))
        moved = place[edges]
        edges, y, split = moved[:, (moved >= 0).all(0)], y[found], split[found]
    shift = torch.arange(copies).repeat_interleave(edges.shape[1]) * len(y)
    edges, y, split = edges.repeat(1, copies) + shift, y.repeat(copies), split.repeat(copies)
    here = torch.bincount(y[split == 0], minlength=int(y.max()) + 1) > 0  # classes that a small part does not have
    y = torch.where(here[y], y, -1)
    x = torch.randn(len(y), FEATURES, generator=torch.Generator().manual_seed(0))
    sets = Split(*(((split == i) & (y >= 0)).nonzero().flatten() for i in range(3)))
    return graph_data(f"arxiv-{len(y)}", x, edges, y, split=sets)


def grown(edges: torch.Tensor, n: int, wanted: int) -> torch.Tensor:
    """`wanted` nodes, in the order of their distance from node 0, those of one distance in ascending order."""
    reached, order = torch.zeros(n, dtype=torch.bool), [torch.tensor([0])]
    reached[0] = True
    both = torch.cat([edges, edges.flip(0)], 1)
    while sum(map(len, order)) < wanted:
        frontier = torch.zeros(n, dtype=torch.bool)
        frontier[order[-1]] = True
        new = both[1, frontier[both[0]]].unique()
        new = new[~reached[new]]
        if len(new) == 0:  # the rest is not joined to node 0
            new = (~reached).nonzero().flatten()
        reached[new] = True
        order.append(new)
    return torch.cat(order)[:wanted].sort().values


def measure(path: Path, nodes: int, copies: int, form: str, steps: int) -> dict[str, Any]:
    """One process's measurement: CPU seconds of a step, memory that it adds, and what is in a batch."""
    data, generator = part(path, nodes, copies), torch.Generator().manual_seed(0)
    sizes = {"features": FEATURES, "classes": data.num_classes}
    module: GraphNet = SGC(**sizes) if form == LINEAR else GCN(**sizes, width=256, start=Start.FAN_IN)
    structure = PairwiseMlp(FEATURES, hidden=256, generator=generator)
    counts = class_counts(data.train_y, SYNTHETIC, classes=data.num_classes)
    graph = Graph.from_real(data, counts, generator, adjacency=structure)
    gcond = GCond(cd.Net(module), data, generator, outer=20, inner=3, batch_real=BATCH, fanouts=FANOUTS[form])
    seen = [] if form == LINEAR else batch_sizes(data, form)
    before = resident("VmRSS") or 0
    forget_peak()
    laps, start = [], time.process_time()
    for _ in iterate(graph, gcond, gcond.optimizer(graph), steps=steps + 1):
        laps.append(time.process_time() - start)
        start = time.process_time()
    return {
        "form": form,
        "nodes": data.num_nodes,
        "edges": data.num_edges,
        "classes": data.num_classes,
        "copies": copies,
        "steps": steps,
        "first_seconds": laps[0],
        "seconds": statistics.median(laps[1:]),
        "data_mb": before,
        "added_mb": peak() - before,
        "largest_batch": max(seen, default=None),
        "mean_batch": statistics.mean(seen) if seen else None,
    }


def batch_sizes(data: GraphData, form: str) -> list[int]:
    """Nodes in one batch of each class."""
    batches, generator = ClassBatches(data, size=BATCH, fanouts=FANOUTS[form]), torch.Generator().manual_seed(1)
    return [len(batches.draw(c, generator).x.features) for c in range(data.num_classes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="ogbn_arxiv_structure.npz")
    parser.add_argument("--nodes", nargs="*", type=int, default=[10_000, 20_000, 40_000, 80_000, 169_343])
    parser.add_argument("--copies", nargs="*", type=int, default=[4], help="also so many copies of the whole graph")
    parser.add_argument("--forms", nargs="*", default=[SAMPLED, LINEAR, WHOLE], choices=[SAMPLED, LINEAR, WHOLE])
    parser.add_argument("--steps", type=int, default=3, help="measured ones, after one that is not; 1 for whole ones")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "graphs-scale.json")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        nodes, copies, form, steps = options.worker
        print(json.dumps(measure(options.data, int(nodes), int(copies), form, int(steps))))
        return
    kept = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    everything = max(options.nodes)
    for form in options.forms:
        places = [(n, 1) for n in options.nodes] + [(everything, c) for c in options.copies]
        for nodes, copies in places:
            steps = 1 if form == WHOLE else options.steps
            worker = [str(x) for x in (nodes, copies, form, steps)]
            command = [sys.executable, __file__, "--data", str(options.data), "--worker", *worker]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(output.splitlines()[-1])
            same = {"form", "nodes", "copies"}
            kept = [r for r in kept if any(r[key] != row[key] for key in same)] + [row]
            print(row, flush=True)
            found = {"host": host(), "features": FEATURES, "synthetic": SYNTHETIC, "batch": BATCH, "rows": kept}
            write_text(options.output, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
