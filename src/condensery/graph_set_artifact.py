"""One self-describing file for a condensed set of graphs, and its export for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from condensery import configs, nets, records
from condensery.data.graph_features import FeatureMap, feature_map_from_config
from condensery.data.graph_sets import GraphSet
from condensery.data.tu_files import write_tu
from condensery.graph_fitting import GraphRecipe
from condensery.store import replacing_folder, save_tree
from condensery.synthetic import per_class_of

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["KIND", "VERSION", "GraphSetArtifact"]

KIND = "condensery-graph-set"
VERSION = 1

_BUILDABLE: dict[str, type] = {GraphRecipe.__name__: GraphRecipe}
_PLAIN: dict[str, type] = {**records.MADE, "real": Mapping}
_PARTS = ("x", "edges", "sizes", "y")


@dataclass(frozen=True)
class GraphSetArtifact:
    """A condensed set of graphs with all that gives it meaning.

    Attributes:
        graphs: The graphs, in order of their classes, every one a training graph; with class names, and the
            preprocessing that made the features of the stored ones.
        recipe: How networks are trained on the set.
        network: The network that is trained on it in an evaluation, as `nets.describe` gives it.
        dataset: The name of the data.
        method: The name of the method or coreset.
        real: What the real set has: ``graphs``, ``nodes``, ``edges`` and ``train``, the training graphs.
        options: Every option of the method and the run.
        seed: The run's seed.
        split: How the set was read and split, so that evaluating does the same.
        indices: For a coreset, which graphs of the real set these are, int64 ``[g]``.
        scores: Results so far, plain data.
        versions: Of condensery, torch and Python at the time of writing.
        provenance: Seconds, steps, hardware; plain data.

    Raises:
        ValueError: If the parts do not fit together.
    """

    graphs: GraphSet
    recipe: GraphRecipe
    network: Mapping[str, Any]
    dataset: str
    method: str
    real: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    split: Mapping[str, Any] = field(default_factory=dict)
    indices: Tensor | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=records.versions)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        y, count = self.graphs.y, len(self.graphs)
        if len(self.graphs.train) != count:
            raise ValueError(f"{len(self.graphs.train)} of {count} graphs train; give a set that trains as a whole.")
        if int(y[0]) < 0 or bool((y[1:] < y[:-1]).any()):
            raise ValueError("The graphs are not in order of their classes, numbered from 0; sort them.")
        if self.indices is not None and self.indices.shape != (count,):
            raise ValueError(
                f"The indices have shape {tuple(self.indices.shape)}; give one for each of {count} graphs."
            )
        if min((self.real.get(key, 0) for key in ("graphs", "train")), default=0) < 1:
            raise ValueError("The sizes of the real set are missing; give graphs, nodes, edges and train.")

    def __repr__(self) -> str:
        return f"GraphSetArtifact({self.method} of {self.dataset}, {len(self.graphs)} graphs)"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.graphs.classes

    @property
    def preprocessing(self) -> FeatureMap:
        """How stored features became those that networks see."""
        return self.graphs.preprocessing

    def training_recipe(self) -> GraphRecipe:
        """How networks are trained on the set."""
        return self.recipe

    def build_network(self) -> nn.Module:
        """A fresh network of the kind that is trained on the set.

        Raises:
            ValueError: If it cannot be built.
        """
        return nets.build(self.network)

    @property
    def per_class(self) -> list[int]:
        """Graphs of each class."""
        return per_class_of(self.graphs.y, len(self.classes))

    @property
    def spent(self) -> dict[str, Any]:
        """What the set really costs; edges are undirected ones, stored once."""
        data = self.graphs
        edges, each = data.edges.shape[1] // 2, 2 * data.edges.element_size() + (0 if data.weights is None else 4)
        values, sizes = (part.numel() * part.element_size() for part in (data.x, data.sizes))
        return {
            "graphs": len(data),
            "nodes": len(data.x),
            "edges": edges,
            "share_of_training_graphs": len(data) / self.real["train"],
            "labels": "hard",
            "bytes": values + sizes + len(data) + edges * each,
        }

    # --- the file

    def save(self, path: str | Path) -> None:
        """Write the file (``.safetensors``): whole or not at all."""
        data = self.graphs
        tree = {
            "graphs": {**{name: getattr(data, name) for name in _PARTS}, "weights": data.weights},
            "preprocessing": {"config": self.preprocessing.config(), "tensors": dict(self.preprocessing.tensors())},
            "recipe": configs.to_config(self.recipe),
            "indices": self.indices,
            "classes": list(self.classes),
            **{name: records.plain(getattr(self, name)) for name in _PLAIN},
        }
        save_tree(path, tree, kind=KIND, version=VERSION)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> GraphSetArtifact:
        """Read a file. Nothing in it is executed or unpickled.

        Raises:
            FileNotFoundError: If there is none.
            DamagedFile: In one sentence, if it cannot be read or does not make sense.
        """
        made = records.opened(
            path, lambda tree: _from_tree(cls, tree), kind=KIND, version=VERSION, what="condensed set of graphs"
        )
        return replace(made, graphs=made.graphs.to(device))

    # --- exports

    def export_tu(self, folder: str | Path) -> Path:
        """Write the set in the layout of TU Dortmund's collection into a new folder: whole or not at all.

        The files are called after the folder, as ``FOLDER_A.txt`` (see `data.tu_files.write_tu`); ``about.json`` says
        what made the set and what the classes are called. `condensery.data.tu_graphs` and PyTorch Geometric read it.

        Raises:
            ValueError: If the folder is there already, or no graph has an edge.
        """
        folder = Path(folder)
        with replacing_folder(folder) as temporary:
            write_tu(self.graphs, temporary, folder.name)
            about = {**records.about(self), "classes": list(self.classes)}
            (temporary / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        return folder

    def to_pyg(self) -> list[Data]:
        """The graphs as PyTorch Geometric's `Data`: ``x``, ``edge_index``, ``y``, ``edge_weight`` of weighted edges.

        Raises:
            ImportError: Without PyTorch Geometric.
        """
        return self.graphs.to_pyg()


# --- reading
# --------------------------------------------------------------------------------------------------------------------


def _check_types(tree: Mapping[str, Any]) -> None:
    """Raise a TypeError for a part of the wrong type."""
    stored, names = tree["graphs"], tree["classes"]
    also = {name: isinstance(stored[name], Tensor) for name in _PARTS}
    also |= {
        "weights": isinstance(stored["weights"], Tensor | None),
        "indices": isinstance(tree["indices"], Tensor | None),
        "class names": isinstance(names, list) and all(isinstance(c, str) for c in names),
        "real": all(isinstance(size, int) for size in tree["real"].values()),
    }
    records.check_types(tree, _PLAIN, also=also)


def _from_tree(cls: type[GraphSetArtifact], tree: Mapping[str, Any]) -> GraphSetArtifact:
    _check_types(tree)
    stored, preprocessing = tree["graphs"], tree["preprocessing"]
    recipe = configs.from_config(tree["recipe"], _BUILDABLE)
    every = torch.arange(len(stored["y"]))
    graphs = GraphSet(
        name=f"{tree['dataset']}-condensed",
        **{name: stored[name] for name in (*_PARTS, "weights")},
        train=every,
        validation=every[:0],
        test=every[:0],
        classes=tuple(tree["classes"]),
        preprocessing=feature_map_from_config(preprocessing["config"], preprocessing["tensors"]),
    )
    return cls(graphs=graphs, recipe=recipe, indices=tree["indices"], **{name: tree[name] for name in _PLAIN})
