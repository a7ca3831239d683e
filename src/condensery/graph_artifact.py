"""One self-describing file for a condensed graph, and exports of it for other programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from condensery import configs, nets, records
from condensery.adjacency import Adjacency, NodeInput
from condensery.batch import Batch
from condensery.data.graph_features import FeatureMap, feature_map_from_config
from condensery.data.graphs import GraphData
from condensery.fitting import Adam, Constant, CrossEntropy, Drop, Sgd, SquaredError, WarmupCosine
from condensery.graph import FixedAdjacency, Graph, IdentityAdjacency
from condensery.node_fitting import NodeRecipe, Nodes
from condensery.store import decimals, replacing, replacing_folder, save_tree
from condensery.synthetic import per_class_of, size_in_bytes

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["KIND", "VERSION", "GraphArtifact"]

KIND = "condensery-graph"
VERSION = 1

_BUILDABLE: dict[str, type] = {
    cls.__name__: cls for cls in (NodeRecipe, Sgd, Adam, Constant, Drop, WarmupCosine, CrossEntropy, SquaredError)
}


@dataclass(frozen=True)
class GraphArtifact:
    """A condensed graph with all that gives it meaning.

    Attributes:
        graph: Nodes with their features, labels and learned step size; edges that are not learned any more, all of
            them with their weights (see `Graph.frozen`).
        threshold: Edges that weigh less do not count when the graph is used.
        classes: Class names.
        preprocessing: How stored features became those that networks see, with its statistics.
        recipe: How networks are trained on the graph.
        network: The network that is trained on it in an evaluation, as `nets.describe` gives it.
        dataset: The name of the data.
        method: The name of the method or coreset.
        real: What the real graph has: ``nodes``, ``edges`` and ``train``, the training nodes.
        options: Every option of the method and the run.
        seed: The run's seed.
        split: How the graph was read and split, so that evaluating does the same.
        indices: For a selection, which nodes of the real graph these are, int64 ``[n']``.
        assignment: For a graph of merged nodes, the node that each node of the real graph became, int64 ``[n]``; -1 for
            those left out. Its nodes are means of real ones, so it has no `indices`.
        scores: Results so far, plain data.
        versions: Of condensery, torch and Python at the time of writing.
        provenance: Seconds, steps, hardware; plain data.

    Raises:
        ValueError: If the parts do not fit together.
    """

    graph: Graph
    threshold: float
    classes: tuple[str, ...]
    preprocessing: FeatureMap
    recipe: NodeRecipe
    network: Mapping[str, Any]
    dataset: str
    method: str
    real: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    split: Mapping[str, Any] = field(default_factory=dict)
    indices: Tensor | None = None
    assignment: Tensor | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=records.versions)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.graph.classes)
        if int(self.graph.classes.max()) >= len(self.classes):
            raise ValueError(
                f"A node is of class {int(self.graph.classes.max())}; name that many classes and one more."
            )
        if not isinstance(self.graph.adjacency, FixedAdjacency | IdentityAdjacency):
            raise ValueError("The edges of the graph are learned still; give graph.frozen().")
        if not self.threshold >= 0:
            raise ValueError(f"The threshold is {self.threshold}; give 0 or more.")
        if self.indices is not None and self.indices.shape != (n,):
            raise ValueError(f"The indices have shape {tuple(self.indices.shape)}; give one for each of {n} nodes.")
        if self.assignment is not None:
            _check_assignment(self.assignment, n, self.indices)
        if min((self.real.get(key, 0) for key in ("nodes", "train")), default=0) < 1:
            raise ValueError("The sizes of the real graph are missing; give nodes, edges and train.")

    def __repr__(self) -> str:
        spent = self.spent
        return f"GraphArtifact({self.method} of {self.dataset}, {spent['nodes']} nodes, {spent['edges']} edges)"

    def batch(self, *, hard_labels: bool = False, device: torch.device | str | None = None) -> Batch:
        """What a network is trained on: ``NodeInput(features [n', d], graph)`` and labels, edges below the threshold
        left out.

        The label is -1 where a node has none (see `nodes`).

        Args:
            hard_labels: Replace soft or learned labels by the class of each node.
            device: Where to.
        """
        x, y = cut(self.graph, self.threshold)
        y = self.graph.classes if hard_labels else y
        place = x.features.device if device is None else device
        return Batch(NodeInput(x.features.to(place), x.graph.to(place)), y.to(place))

    def nodes(self, *, device: torch.device | str | None = None) -> Nodes:
        """What a network is trained on: the nodes that have a label, on the graph that they are seen in."""
        x, y = self.batch(device=device)
        labelled = (self.graph.classes >= 0).nonzero().flatten().to(x.features.device)
        return Nodes(x, y, None if len(labelled) == len(y) else labelled)

    def training_recipe(self) -> NodeRecipe:
        """The recipe, with the learned step size as its learning rate if the graph has one and the recipe is SGD's."""
        return recipe_for(self.graph, self.recipe)

    def build_network(self) -> nn.Module:
        """A fresh network of the kind that is trained on the graph.

        Raises:
            ValueError: If it cannot be built.
        """
        return nets.build(self.network)

    def data(self) -> GraphData:
        """The graph as data, edges below the threshold left out; every node that has a label trains.

        Soft labels are not part of it: it has the classes that the nodes stand for.
        """
        made, name = self.graph.sparsified(self.threshold), f"{self.dataset}-condensed"
        return replace(made, name=name, classes=self.classes, preprocessing=self.preprocessing)

    @property
    def per_class(self) -> list[int]:
        """Nodes of each class."""
        return per_class_of(self.graph.classes, len(self.classes))

    @property
    def spent(self) -> dict[str, Any]:
        """What the graph really costs; edges are undirected ones of at least the threshold, stored once."""
        n, labelled, data = len(self.graph.classes), sum(self.per_class), self.data()
        edges, each = data.num_edges, 2 * data.edges.element_size() + (0 if data.weights is None else 4)
        return {
            "nodes": n,
            "labelled": labelled,
            "edges": edges,
            "share_of_training_nodes": n / self.real["train"],
            "share_of_nodes": n / self.real["nodes"],
            "labels": self.graph.kind_of_labels,
            "bytes": size_in_bytes(self.graph) + edges * each,
        }

    # --- the file

    def save(self, path: str | Path) -> None:
        """Write the file (``.safetensors``): whole or not at all."""
        graph = self.graph
        tree = {
            "graph": {
                "values": graph.values,
                "classes": graph.classes,
                "labels": graph.labels,
                "step_size": graph.step_size,
                "learn_labels": graph.kind_of_labels == "learned",
                "logits": graph.logits,
                "adjacency": dict(graph.adjacency.named_buffers()),
            },
            "threshold": self.threshold,
            "preprocessing": {"config": self.preprocessing.config(), "tensors": dict(self.preprocessing.tensors())},
            "recipe": configs.to_config(self.recipe),
            "indices": self.indices,
            "assignment": self.assignment,
            "classes": list(self.classes),
            **{name: records.plain(getattr(self, name)) for name in _PLAIN},
        }
        save_tree(path, tree, kind=KIND, version=VERSION)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> GraphArtifact:
        """Read a file. Nothing in it is executed or unpickled.

        Raises:
            FileNotFoundError: If there is none.
            DamagedFile: In one sentence, if it cannot be read or does not make sense.
        """
        return records.opened(
            path, lambda tree: _from_tree(cls, tree, device), kind=KIND, version=VERSION, what="condensed graph"
        )

    # --- exports

    def export_npz(self, path: str | Path) -> Path:
        """Write the graph as an npz file: whole or not at all.

        Arrays: ``x`` float32 ``[n', d]``, ``edge_index`` int64 ``[2, m]`` (each edge in both directions),
        ``edge_weight`` float32 ``[m]`` where the graph is weighted, ``y`` int64 ``[n']``, -1 for a node without a
        label, ``train_mask``, the nodes with one; ``soft_y`` ``[n', C]`` for labels that are not hard; ``classes``, and
        ``about``, JSON of what made it; the preprocessing's statistics as ``preprocessing_NAME``.
        `condensery.data.graph_npz` reads it.
        """
        path, data, soft = Path(path), self.data(), self.graph.soft_labels()
        arrays: dict[str, Any] = {"x": data.x, "edge_index": data.edges, "y": data.y}
        arrays |= {} if data.weights is None else {"edge_weight": data.weights}
        arrays |= {} if soft is None else {"soft_y": soft}
        arrays |= {f"preprocessing_{name}": part for name, part in self.preprocessing.tensors().items()}
        held = {name: part.detach().cpu().numpy() for name, part in arrays.items()}
        text = {"classes": np.array(self.classes), "about": np.array(json.dumps(self._about()))}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **text, **held, train_mask=held["y"] >= 0)
        return path

    def export_csv(self, folder: str | Path) -> Path:
        """Write the graph as tables into a new folder: whole or not at all.

        ``nodes.csv`` has a line for each node: ``id``, ``label`` and ``split``, both empty for a node without a label,
        and the features ``x0``, ``x1``...
        ``edges.csv`` has each edge once: ``source``, ``target`` and, where the graph is weighted, ``weight``.
        ``soft_labels.csv`` is there for labels that are not hard, ``about.json`` says what made it.
        `condensery.data.graph_csv` reads it.

        Raises:
            ValueError: If the folder is there already.
        """
        folder = Path(folder)
        with replacing_folder(folder) as temporary:
            self._write_tables(temporary)
        return folder

    def to_pyg(self) -> Data:
        """The graph as PyTorch Geometric's `Data`; soft labels are its ``soft_y`` ``[n', C]``.

        Raises:
            ImportError: Without PyTorch Geometric.
        """
        return self.graph.to_pyg(self.threshold)

    def _write_tables(self, folder: Path) -> None:
        data, soft = self.data(), self.graph.soft_labels()
        once = data.edges[0] < data.edges[1]
        pairs: list[list[object]] = data.edges[:, once].T.tolist()
        if data.weights is not None:
            pairs = [[*pair, weight] for pair, weight in zip(pairs, decimals(data.weights[once]), strict=True)]
        _write(folder / "edges.csv", ["source", "target", *([] if data.weights is None else ["weight"])], pairs)
        features = [decimals(row) for row in data.x]
        said = [[self.classes[c], "train"] if c >= 0 else ["", ""] for c in data.y.tolist()]
        rows = [[i, *label, *x] for i, (label, x) in enumerate(zip(said, features, strict=True))]
        _write(folder / "nodes.csv", ["id", "label", "split", *(f"x{k}" for k in range(data.num_features))], rows)
        if soft is not None:
            labels = [[i, *decimals(row)] for i, row in enumerate(soft.detach())]
            _write(folder / "soft_labels.csv", ["id", *self.classes], labels)
        (folder / "about.json").write_text(json.dumps(self._about(), indent=1) + "\n", encoding="utf-8")

    def _about(self) -> dict[str, Any]:
        step = self.graph.step_size
        step_size = None if step is None else float(step.detach())
        return {**records.about(self), "threshold": self.threshold, "step_size": step_size}


def _check_assignment(assignment: Tensor, n: int, indices: Tensor | None) -> None:
    if indices is not None:
        raise ValueError("A node is chosen or merged of several, not both; give indices or an assignment.")
    if assignment.dim() != 1 or assignment.dtype != torch.int64:
        raise ValueError(f"The assignment is {assignment.dtype} {tuple(assignment.shape)}; give int64 [n].")
    if sorted({*assignment.unique().tolist()} - {-1}) != list(range(n)):
        raise ValueError(f"The assignment does not name each of {n} nodes; give the node that each real one became.")


def cut(graph: Graph, threshold: float) -> Batch:
    """What a network is trained on: the nodes of a graph without the edges below the threshold, and their labels."""
    x, y = graph()
    return Batch(NodeInput(x.features.detach(), _cut(x.graph, threshold)), y.detach())


def recipe_for(graph: Graph, recipe: NodeRecipe) -> NodeRecipe:
    """A recipe, with the learned step size as its learning rate if the graph has one and the recipe is SGD's."""
    step = graph.step_size
    if step is None or not isinstance(recipe.optimizer, Sgd):
        return recipe  # a step size was learned for plain descent, and says nothing to Adam
    return recipe.with_lr(float(step.detach()))


def _cut(graph: Adjacency, threshold: float) -> Adjacency:
    """The graph without edges below the threshold, in the same form."""
    if graph.matrix is not None:
        matrix = graph.matrix.detach()
        return Adjacency.dense_matrix(torch.where(matrix >= threshold, matrix, torch.zeros_like(matrix)))
    if graph.weights is None or graph.edges is None:
        return graph
    kept = graph.weights >= threshold
    return Adjacency.sparse(graph.edges[:, kept], graph.n, graph.weights[kept])


def _write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


# --- reading
# --------------------------------------------------------------------------------------------------------------------

_PLAIN: dict[str, type] = {**records.MADE, "real": Mapping}


def _check_types(tree: Mapping[str, Any]) -> None:
    """Raise a TypeError for a part of the wrong type."""
    stored, names = tree["graph"], tree["classes"]
    also = {name: isinstance(stored[name], Tensor) for name in ("values", "classes")}
    also |= {name: isinstance(stored[name], bool) for name in ("learn_labels", "logits")}
    also |= {
        "labels": isinstance(stored["labels"], Tensor | None),
        "indices": isinstance(tree["indices"], Tensor | None),
        "assignment": isinstance(tree.get("assignment"), Tensor | None),
    }
    also |= {"class names": isinstance(names, list) and all(isinstance(c, str) for c in names)}
    also |= {"adjacency": all(isinstance(part, Tensor) for part in stored["adjacency"].values())}
    also |= {"real": all(isinstance(size, int) for size in tree["real"].values())}
    records.check_types(tree, {**_PLAIN, "threshold": (int, float)}, also=also)


def _from_tree(cls: type[GraphArtifact], tree: Mapping[str, Any], device: torch.device | str) -> GraphArtifact:
    _check_types(tree)
    stored = tree["graph"]
    recipe = configs.from_config(tree["recipe"], _BUILDABLE)
    if not isinstance(recipe, NodeRecipe):
        raise TypeError("its recipe is not one")
    graph = Graph(
        stored["values"],
        stored["classes"],
        adjacency=_structure(stored["adjacency"], len(stored["values"])),
        labels=stored["labels"],
        learn_labels=stored["learn_labels"],
        logits=stored["logits"],
        step_size=None if stored["step_size"] is None else float(stored["step_size"]),
    )
    artifact = cls(
        graph=graph.to(device),
        threshold=float(tree["threshold"]),
        classes=tuple(tree["classes"]),
        preprocessing=feature_map_from_config(tree["preprocessing"]["config"], tree["preprocessing"]["tensors"]),
        recipe=recipe,
        indices=tree["indices"],
        assignment=tree.get("assignment"),
        **{name: tree[name] for name in _PLAIN},
    )
    artifact.data()  # for its checks: finite features, edges within the graph
    return artifact


def _structure(stored: Mapping[str, Tensor], n: int) -> FixedAdjacency | IdentityAdjacency:
    """The edges of a file; that they are within the graph is seen when it becomes data."""
    if not stored:
        return IdentityAdjacency()
    if "matrix" in stored:
        matrix = stored["matrix"]
        if matrix.shape != (n, n) or not bool(matrix.isfinite().all()) or not torch.equal(matrix, matrix.T):
            raise ValueError("its matrix is not a symmetric one of its nodes")
        return FixedAdjacency(Adjacency.dense_matrix(matrix))
    edges, weights = stored["edges"], stored.get("weights")
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < n:
        raise ValueError("its edges leave the graph")
    if weights is not None and not bool(weights.isfinite().all()):
        raise ValueError("its weights are not finite")
    return FixedAdjacency(Adjacency.sparse(edges, n, weights))
