"""Graphs: how well networks that are trained on condensed graphs classify the nodes of the real one.

    python benchmarks/graphs.py run cora 70 gcond                  # condense and evaluate; going on where stopped
    python benchmarks/graphs.py run cora 70 gcond --look 50,200    # and look on the way
    python benchmarks/graphs.py run cora 70 gcond --keep-best 25   # keep the graph that validates best
    python benchmarks/graphs.py run cora 70 gcond --net gin        # another network inside
    python benchmarks/graphs.py across cora 70 gcond               # the same graph under other networks
    python benchmarks/graphs.py run cora 70 sfgc --experts 20      # record experts first, or those that are missing
    python benchmarks/graphs.py many < lines                       # one of these a line

The test is the literature's: a GCN of 2 layers and width 256, 600 steps of Adam; both the accuracy of the last step and
that of the step chosen on the real validation nodes are kept, as mean and deviation over networks on one graph (random:
a new subset for each). SFGC and GEOM are also tested as their authors do, and SFGC without its choice of a set.
What has a result file is not run again. Data: $CONDENSERY_DATA, Cora with Planetoid's split and Amazon-Photo with 20
training nodes a class, 500 for validation, 1,000 for testing, drawn with seed 0; features divided by their sum
(photo-as-given: 0 and 1, as they are). Writes one JSON file a run to benchmarks/results/graphs/.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

import condensery as cd
from condensery import experts
from condensery.configs import to_config
from condensery.coresets import graphs as coresets
from condensery.data.graph_features import AsGiven, RowNormalised
from condensery.data.graph_files import from_npz
from condensery.data.graph_pyg import planetoid
from condensery.data.graphs import GraphData
from condensery.evaluate.nodes import NodeRecipe, Nodes, fit_nodes, score_nodes
from condensery.evaluate.score import Row
from condensery.fitting import Adam, Constant
from condensery.graph import Graph, PairwiseMlp, class_counts
from condensery.loop import result
from condensery.memory import keep_freed_memory
from condensery.methods import geom as geom_method
from condensery.methods import sfgc as sfgc_method
from condensery.methods.doscond import DosCond
from condensery.methods.gcdm import GCDM
from condensery.methods.gcond import GCond
from condensery.methods.gntk import GraphTangentScore
from condensery.nets.graph import APPNP, GAT, GCN, GIN, SAGE, SGC, ChebNet, GraphNet, NodeMLP, Start
from condensery.node_fitting import node_accuracy
from condensery.store import load_tree, save_tree, write_text
from trajectories import assignments, forget_peak, peak, plain, processor

TARGET = Path(__file__).parent / "results" / "graphs"
THRESHOLD = {"cora": 0.05, "photo": 0.01, "photo-as-given": 0.01}  # edges below are dropped, as in GCond's test
# The authors', or GraphSlim's, for Cora.
EPOCHS = {"gcond": 600, "gcond-x": 600, "doscond": 5000, "gcdm": 600, "sfgc": 2000, "geom": 2000}


KEPT = "kept by validation"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/graphs"), help="snapshots and condensed graphs")
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("many")
    for name in ("run", "across"):
        command = commands.add_parser(name)
        command.add_argument("dataset", choices=sorted(THRESHOLD))
        command.add_argument("nodes", type=int, help="of the condensed graph")
        command.add_argument("method", choices=[*PLAIN, *LEARNED])
        command.add_argument("--seed", type=int, default=0, help="of the condensed graph")
        command.add_argument("--net", choices=list(INSIDE), help="inside the method; default: its authors'")
        command.add_argument("--epochs", type=int, help="networks that are drawn while condensing")
        command.add_argument("--experts", type=int, default=20, help="of SFGC and GEOM")
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the method")
        command.add_argument("--tag", default="", help="added to the name of the result")
        command.add_argument("--look", default="", help="`run`: epochs after which two networks are tested as well")
        command.add_argument(
            "--keep-best", type=int, metavar="EPOCHS", help="`run`: keep the graph that validates best"
        )
        command.add_argument("--nets", default=",".join(OUTSIDE), help="of `across`")
    options = parser.parse_args(words)
    if getattr(options, "keep_best", None) and not options.tag:
        options.tag = KEPT
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    lines = [line for line in sys.stdin if line.strip()] if options.command == "many" else [None]
    loaded: dict[str, GraphData] = {}
    for line in lines:
        one = options if line is None else arguments([*first(options), *line.split()])
        if (TARGET / f"{name_of(one)}.json").exists():
            continue
        if one.dataset not in loaded:
            loaded[one.dataset] = load(one.dataset)
        (run if one.command == "run" else across)(name_of(one), one, loaded[one.dataset])


def first(options: argparse.Namespace) -> list[str]:
    """The options that come before the command, for a line of `many`."""
    return ["--work", str(options.work), "--networks", str(options.networks), "--threads", str(options.threads)]


def name_of(options: argparse.Namespace) -> str:
    """The name of a run, and of its file."""
    parts = ["across"] if options.command == "across" else []
    parts += [options.dataset] + ([] if options.method == "whole" else [str(options.nodes)]) + [options.method]
    parts += ([options.net] if options.net else []) + ([options.tag] if options.tag else [])
    return "-".join([*parts, f"seed{options.seed}"]).replace(" ", "-")


def load(dataset: str) -> GraphData:
    """A real graph with its split."""
    folder = Path(os.environ.get("CONDENSERY_DATA", "."))
    if dataset == "cora":
        return planetoid(folder, "cora")
    fit = RowNormalised.of if dataset == "photo" else AsGiven.of
    return from_npz(folder / "graphs" / "amazon_photo.npz", fit=fit, seed=0)


# --- networks
# ---------------------------------------------------------------------------------------------------------------

# Inside a method; SGC is GCond's, GCN DosCond's and GCDM's.
INSIDE: dict[str, Callable[..., GraphNet]] = {
    "sgc": partial(SGC, hops=2),
    "gcn": partial(GCN, start=Start.FAN_IN),
    "gin": partial(GIN, learn_epsilon=False),
}
# Tested on a condensed graph, by the same recipe; GCond's own weights at the start where a network has the choice.
OUTSIDE: dict[str, Callable[..., GraphNet]] = {
    "GCN": partial(GCN, start=Start.FAN_IN),
    "SGC": partial(SGC, hops=2),
    "GIN": partial(GIN, learn_epsilon=False),
    "SAGE": SAGE,
    "APPNP": APPNP,
    "ChebNet": ChebNet,
    "GAT": GAT,
    "MLP": NodeMLP,
}


def built(kind: Callable[..., GraphNet], data: GraphData) -> cd.Net:
    """A network for a graph."""
    with torch.random.fork_rng(devices=[]):  # the layers' first weights are PyTorch's own draw
        return cd.Net(kind(features=data.num_features, classes=data.num_classes))


# --- a condensed graph
# ------------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """A method that is ready to run.

    Attributes:
        graph: Where it begins.
        objective: The method.
        epoch: Its steps in an epoch.
    """

    graph: Graph
    objective: Any
    epoch: int


def start(options: argparse.Namespace, data: GraphData, generator: Generator, *, edges: bool) -> Graph:
    """Features of training nodes, and whom the pairwise network joins or nobody."""
    mlp = PairwiseMlp(data.num_features, generator=generator) if edges else None
    return Graph.from_real(data, class_counts(data.train_y, options.nodes), generator, adjacency=mlp)


def gcond(options: argparse.Namespace, data: GraphData, generator: Generator, *, edges: bool = True) -> Plan:
    """GCond, and GCond-X without edges."""
    graph = start(options, data, generator, edges=edges)
    net = built(INSIDE[options.net or "sgc"], data)
    objective = GCond(net, data, generator, **assignments(options.set))
    return Plan(graph, objective, objective.outer)


def doscond(options: argparse.Namespace, data: GraphData, generator: Generator) -> Plan:
    """DosCond."""
    graph = start(options, data, generator, edges=True)
    net = built(INSIDE[options.net or "gcn"], data)
    objective = DosCond(net, data, generator, **assignments(options.set))
    return Plan(graph, objective, objective.outer)


def gcdm(options: argparse.Namespace, data: GraphData, generator: Generator) -> Plan:
    """GCDM without edges, as GraphSlim has it."""
    graph = start(options, data, generator, edges=False)
    net = built(INSIDE[options.net or "gcn"], data)
    objective = GCDM(net, data, generator, **assignments(options.set))
    return Plan(graph, objective, objective.outer)


# SFGC's lengths for Cora, and the learning rate and weight decay of its and GEOM's own test, by the number of nodes.
SFGC_STEPS = {
    35: {"inner_steps": 400, "expert_epochs": 150, "max_start": 51},
    70: {"inner_steps": 500, "expert_epochs": 120, "max_start": 31},
    140: {"inner_steps": 500, "expert_epochs": 200, "max_start": 31},
}
OWN_TEST = {35: (1e-3, 5e-4), 70: (1e-3, 1e-3), 140: (1e-2, 5e-4)}


def experts_of(options: argparse.Namespace, data: GraphData, net: cd.Net) -> experts.Store:
    """Experts of a method, those that are missing recorded now."""
    plans = {
        "sfgc": experts.NodeRecording(epochs=250),
        "geom": experts.NodeRecording(epochs=300, curriculum=experts.Curriculum()),
    }
    folder = options.work / f"experts-{options.dataset}-{options.method}"
    how, layout = plans[options.method], experts.Layout.HALF
    return experts.record_nodes(folder, net, data, how, count=options.experts, layout=layout)


def sfgc(options: argparse.Namespace, data: GraphData, generator: Generator) -> Plan:
    """SFGC with its choice among the sets on the way."""
    net = built(INSIDE[options.net or "gcn"], data)
    store = experts_of(options, data, net)
    graph = sfgc_method.start(net, store, data, class_counts(data.train_y, options.nodes), generator)
    settings = {**SFGC_STEPS.get(options.nodes, {}), "choose_every": 5, **assignments(options.set)}
    return Plan(graph, sfgc_method.SFGC(net, store, generator, choice=GraphTangentScore(data), **settings), 1)


def geom(options: argparse.Namespace, data: GraphData, generator: Generator) -> Plan:
    """GEOM; the last set is the result."""
    net = built(INSIDE[options.net or "gcn"], data)
    store = experts_of(options, data, net)
    graph = geom_method.start(net, store, data, class_counts(data.train_y, options.nodes), generator)
    settings = {"expert_epochs": 150 if options.nodes == 35 else 140, **assignments(options.set)}
    return Plan(graph, geom_method.GEOM(net, store, generator, **settings), 1)


LEARNED: dict[str, Callable[[argparse.Namespace, GraphData, Generator], Plan]] = {
    "gcond-x": partial(gcond, edges=False),
    "gcond": gcond,
    "doscond": doscond,
    "gcdm": gcdm,
    "sfgc": sfgc,
    "geom": geom,
}
PLAIN = ["whole", "random", "degree", "pagerank", "herding", "k-center"]


def selected(options: argparse.Namespace, data: GraphData, generator: Generator) -> Tensor:
    """Nodes of a coreset."""
    view = data.training_view()
    counts = class_counts(data.train_y, options.nodes)
    if options.method == "random":
        return coresets.random(view, counts, generator=generator)
    if options.method in ("degree", "pagerank"):
        return getattr(coresets, options.method)(view, counts)  # type: ignore[no-any-return]
    embeddings = embedded(data, generator)
    if options.method == "herding":
        return coresets.herding(view, counts, embeddings)
    return coresets.k_center(view, counts, embeddings, generator=generator)


@torch.no_grad()
def embedded(data: GraphData, generator: Generator) -> Tensor:
    """What enters the last layer of a GCN that was trained on the whole graph, ``[n, 256]``."""
    net, view = built(OUTSIDE["GCN"], data), data.training_view()
    with torch.enable_grad():
        fitted = fit_nodes(net, Nodes.training(data), NodeRecipe(), generator)
    return net.embed(fitted.last, view.whole().x)  # type: ignore[arg-type]


# --- a run
# ------------------------------------------------------------------------------------------------------------------


def run(name: str, options: argparse.Namespace, data: GraphData) -> None:
    facts: dict[str, Any] = {**facts_of(name, options, data), "split": split_of(data)}
    forget_peak()
    begun, generator = time.process_time(), Generator().manual_seed(1000 + options.seed)
    made: GraphData | list[GraphData] | None = None
    soft: Tensor | None = None
    if options.method in LEARNED:
        made, soft, more = learned(name, options, data, generator)
        facts |= more
    elif options.method == "random":  # another subset for each network
        made = [data.subgraph(selected(options, data, generator)) for _ in range(options.networks)]
    elif options.method != "whole":
        made = data.subgraph(selected(options, data, generator))
    # A run that went on where it was stopped knows what a step costs, and not what all took.
    facts.setdefault("cpu_seconds", {"condense": time.process_time() - begun})
    facts["peak_memory_mb"] = peak()
    begun = time.process_time()
    row = tested(options, data, made, OUTSIDE["GCN"], options.networks, soft=soft, recipe=None)
    facts["cpu_seconds"]["evaluate"] = time.process_time() - begun
    write(name, {**facts, "size": size_of(made, data), "row": row.to_json()})
    print(f"{name}: last {row.last}, chosen {row.chosen}, {facts['cpu_seconds']}", flush=True)


def learned(
    name: str, options: argparse.Namespace, data: GraphData, generator: Generator
) -> tuple[GraphData, Tensor | None, dict[str, Any]]:
    """Run, or go on, to the last step: the condensed graph, its labels if they are soft, and what is to be told."""
    plan = LEARNED[options.method](options, data, generator)
    plan = plan if options.keep_best is None else keeping_best(options, data, plan)
    epochs = options.epochs or EPOCHS[options.method]
    snapshots = cd.Snapshots(options.work / name, every=10 * plan.epoch, run={"name": name})
    looks, waiting = [], [int(word) for word in options.look.split(",") if word]
    spent, clock, losses, done = 0.0, time.process_time(), [], 0
    objective, steps = plan.objective, epochs * plan.epoch
    for step in cd.iterate(plan.graph, objective, objective.optimizer(plan.graph), steps=steps, snapshots=snapshots):
        spent, done = spent + time.process_time() - clock, done + 1
        if step.number % (10 * plan.epoch) == 0:
            losses.append(round(float(step.loss), 6))
        if step.number % (50 * plan.epoch) == 0:
            print(f"{name} epoch {step.number // plan.epoch}: {float(step.loss):.4f}, {spent:.0f} CPU s", flush=True)
        if step.number in [epoch * plan.epoch for epoch in waiting]:
            looks.append(look(name, options, data, plan, step.number))
        clock = time.process_time()
    graph, soft = exported(options, result(plan.graph, objective), data)
    save_tree(options.work / name / "graph.safetensors", stored(graph, soft), kind="graph", version=1)
    a_step = spent / done if done else None  # of a run that went on after its last step nobody knows
    method = objective.objective if isinstance(objective, cd.KeepBest) else objective
    facts = {"epochs": epochs, "steps": steps, "network_inside": type(method.net.module).__name__}
    facts |= {"settings": plain_of(method), "losses": losses, "looks": looks}
    if isinstance(objective, cd.KeepBest):
        best = objective.best(plan.graph)
        facts |= {"kept": {"every": options.keep_best, "step": best["step"], "validation": 1 - best["score"]}}
    if options.method in ("sfgc", "geom"):
        facts |= {"experts": told(objective.experts), "as_its_authors": own_rows(options, data, plan)}
    return graph, soft, {**facts, "cpu_seconds": {"a_step": a_step, "condense": a_step and a_step * steps}}


def keeping_best(options: argparse.Namespace, data: GraphData, plan: Plan) -> Plan:
    """The same, but the graph is kept that validates best: by the last step of one network, the same at each look."""
    net, validation = built(OUTSIDE["GCN"], data), Nodes.validation(data)

    def error(graph: Graph) -> float:
        made, soft = exported(options, graph, data)
        train = Nodes.training(made)
        generator = Generator().manual_seed(2000 + options.seed)
        fitted = fit_nodes(net, train if soft is None else replace(train, y=soft), NodeRecipe(), generator)
        return 1 - node_accuracy(net, fitted.last, validation)

    return plan._replace(objective=cd.KeepBest(plan.objective, error, options.keep_best * plan.epoch))


def exported(options: argparse.Namespace, graph: Graph, data: GraphData) -> tuple[GraphData, Tensor | None]:
    """What networks are trained on: the graph without light edges, and its labels if they are soft."""
    soft = graph.soft_labels()
    made = graph.sparsified(THRESHOLD[options.dataset], like=data)
    return made, None if soft is None else soft.detach()


def told(store: experts.Store) -> dict[str, Any]:
    """How many experts there are, and what made them."""
    kept = ("optimizer", "every", "curriculum", "labels", "seed")
    return {"count": len(store), "epochs": store.epochs, **{k: store.origin[k] for k in kept}}


def own_rows(options: argparse.Namespace, data: GraphData, plan: Plan) -> dict[str, Any]:
    """SFGC and GEOM by the test of their authors: of the result, and of the last set where another was chosen."""
    lr, decay = OWN_TEST.get(options.nodes, OWN_TEST[70])
    recipe = NodeRecipe(optimizer=Adam(lr=lr, weight_decay=decay), schedule=Constant(), check_every=5)
    found: dict[str, Any] = {"evaluation": to_config(recipe)}
    sets = {"row": result(plan.graph, plan.objective), "last_set": plan.graph}
    for name, graph in sets.items():
        if name == "row" or graph is not sets["row"]:
            made, soft = exported(options, graph, data)
            row = tested(options, data, made, OUTSIDE["GCN"], options.networks, soft=soft, recipe=recipe)
            found[name] = row.to_json()
            print(f"{options.method} by its authors' test, {name}: last {row.last}, chosen {row.chosen}", flush=True)
    return found


def look(name: str, options: argparse.Namespace, data: GraphData, plan: Plan, number: int) -> dict[str, Any]:
    """Test two networks on the way; nothing is decided by it."""
    graph, soft = exported(options, plan.graph, data)
    row = tested(options, data, graph, OUTSIDE["GCN"], 2, soft=soft, recipe=None)
    epoch = number // plan.epoch
    print(f"{name} after epoch {epoch}: last {row.last}, chosen {row.chosen}", flush=True)
    return {"epoch": epoch, "size": size_of(graph, data), "row": row.to_json()}


def tested(
    options: argparse.Namespace,
    data: GraphData,
    made: GraphData | list[GraphData] | None,
    kind: Callable[..., GraphNet],
    n: int,
    *,
    soft: Tensor | None,
    recipe: NodeRecipe | None,
) -> Row:
    """Networks on a condensed graph, whose labels may be soft, on each of some, or (``None``) on the whole one."""
    net = built(kind, data)
    if isinstance(made, list):
        train: Nodes | list[Nodes] = [Nodes.training(one) for one in made]
    else:
        train = Nodes.training(data if made is None else made)
        train = train if soft is None else replace(train, y=soft)
    return score_nodes(options.method, net, train, data, recipe, n=n, seed=100 * options.seed)


def across(name: str, options: argparse.Namespace, data: GraphData) -> None:
    """Other networks on a graph that a run left, on subsets, or on the whole graph."""
    made: GraphData | list[GraphData] | None = None
    soft: Tensor | None = None
    generator = Generator().manual_seed(1000 + options.seed)
    if options.method in LEARNED:
        file = options.work / name.removeprefix("across-") / "graph.safetensors"
        tree = load_tree(file, kind="graph", version=1)
        made, soft = restored(tree, data), tree["labels"] if len(tree.get("labels", ())) else None
    elif options.method == "random":
        made = [data.subgraph(selected(options, data, generator)) for _ in range(options.networks)]
    elif options.method != "whole":
        made = data.subgraph(selected(options, data, generator))
    rows, begun = [], time.process_time()
    for title in options.nets.split(","):
        row = tested(options, data, made, OUTSIDE[title], options.networks, soft=soft, recipe=None)
        rows.append({"net": title, "row": row.to_json()})
        print(f"{name} {title}: last {row.last}, chosen {row.chosen}", flush=True)
    cpu = {"evaluate": time.process_time() - begun}
    write(name, {**facts_of(name, options, data), "cpu_seconds": cpu, "size": size_of(made, data), "rows": rows})


# --- what is written
# --------------------------------------------------------------------------------------------------------


def stored(graph: GraphData, soft: Tensor | None) -> dict[str, Any]:
    """A condensed graph as plain tensors, with its soft labels if it has some."""
    weights = torch.empty(0) if graph.weights is None else graph.weights
    labels = torch.empty(0) if soft is None else soft.detach()
    return {"x": graph.x, "y": graph.y, "edges": graph.edges, "weights": weights, "labels": labels}


def restored(tree: dict[str, Any], like: GraphData) -> GraphData:
    """The inverse of `stored`."""
    nodes = torch.arange(len(tree["x"]))
    weights = tree["weights"] if len(tree["weights"]) else None
    split = (nodes, nodes[:0], nodes[:0])
    return GraphData(f"{like.name}-condensed", tree["x"], tree["edges"], tree["y"], *split, like.classes, weights)


def size_of(made: GraphData | list[GraphData] | None, data: GraphData) -> dict[str, Any]:
    """Nodes and edges that networks are trained on, and the numbers that these are."""
    graphs = made if isinstance(made, list) else [data if made is None else made]
    edges = sum(graph.num_edges for graph in graphs) / len(graphs)
    same = [(g.y[g.edges[0]] == g.y[g.edges[1]]).float().mean() for g in graphs if g.num_edges]
    return {
        "nodes": graphs[0].num_nodes,
        "edges": edges,
        "edges_within_a_class": float(torch.stack(same).mean()) if same else None,
        "weighted": graphs[0].weights is not None,
        "training_nodes": len(graphs[0].train),
    }


def split_of(data: GraphData) -> dict[str, Any]:
    """The real graph's sizes, and how it came by its split."""
    sizes = {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    return {"nodes": data.num_nodes, "edges": data.num_edges, **sizes, "notes": list(data.notes)}


def plain_of(objective: Any) -> dict[str, Any]:
    """A method's options."""
    return {key: value for key, value in plain(objective).items() if key != "data"}


def facts_of(name: str, options: argparse.Namespace, data: GraphData) -> dict[str, Any]:
    """What a file says first."""
    keys = ("dataset", "nodes", "method", "seed", "net", "tag", "threads")
    return {
        "name": name,
        **{key: getattr(options, key) for key in keys},
        "ratio": options.nodes / len(data.train),
        "threshold": THRESHOLD[options.dataset],
        "evaluation": to_config(NodeRecipe()),
        "hardware": {"processor": processor()},
        "versions": {"torch": torch.__version__, "condensery": cd.__version__},
    }


def write(name: str, facts: dict[str, Any]) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    write_text(TARGET / f"{name}.json", json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
