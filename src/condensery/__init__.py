"""Condensery: learn a tiny training set that trains models nearly as well as the full one.

Every name below is loaded when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condensery import coresets, data, evaluate, experts, methods, nets, search, spaces
    from condensery.artifact import Artifact
    from condensery.batch import Batch
    from condensery.condensed_log import Interactions
    from condensery.fitting import Execution, Held, Recipe, Trained, accuracy, fit, training
    from condensery.graph import Graph
    from condensery.graph_artifact import GraphArtifact
    from condensery.graph_set_artifact import GraphSetArtifact
    from condensery.graphs import Graphs
    from condensery.keeping import KeepBest
    from condensery.log_artifact import LogArtifact
    from condensery.loop import NotFinite, Objective, Snapshots, Step, condense, iterate, with_gradient
    from condensery.methods import (
        BPTT,
        CIG,
        DATM,
        DC,
        DM,
        DSA,
        FTD,
        GCDM,
        GEOM,
        KIP,
        MCT,
        MTT,
        RCIG,
        RFAD,
        SATM,
        SATMDA,
        SFGC,
        TESLA,
        VIG,
        DConRec,
        DosCond,
        DosCondGraphs,
        DosCondRec,
        FRePo,
        GCond,
    )
    from condensery.net import Net
    from condensery.synthetic import Identity, Images, MultiFormation, Synthetic

__version__ = "0.1.0"

_HOMES = {
    "artifact": ("Artifact",),
    "batch": ("Batch",),
    "fitting": ("Execution", "Held", "Recipe", "Trained", "accuracy", "fit", "training"),
    "condensed_log": ("Interactions",),
    "graph": ("Graph",),
    "graph_artifact": ("GraphArtifact",),
    "graph_set_artifact": ("GraphSetArtifact",),
    "graphs": ("Graphs",),
    "keeping": ("KeepBest",),
    "log_artifact": ("LogArtifact",),
    "loop": ("NotFinite", "Objective", "Snapshots", "Step", "condense", "iterate", "with_gradient"),
    "methods": (
        *("BPTT", "CIG", "DATM", "DC", "DM", "DSA", "FRePo", "FTD", "KIP", "MCT", "MTT", "RCIG", "RFAD"),
        *("SATM", "SATMDA", "TESLA", "VIG", "DConRec", "DosCondRec"),
        *("GCond", "DosCond", "GCDM", "SFGC", "GEOM", "DosCondGraphs"),
    ),
    "net": ("Net",),
    "synthetic": ("Identity", "Images", "MultiFormation", "Synthetic"),
}
_MODULES = ("coresets", "data", "evaluate", "experts", "methods", "nets", "search", "spaces")
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BPTT",
    "CIG",
    "DATM",
    "DC",
    "DM",
    "DSA",
    "FTD",
    "GCDM",
    "GEOM",
    "KIP",
    "MCT",
    "MTT",
    "RCIG",
    "RFAD",
    "SATM",
    "SATMDA",
    "SFGC",
    "TESLA",
    "VIG",
    "Artifact",
    "Batch",
    "DConRec",
    "DosCond",
    "DosCondGraphs",
    "DosCondRec",
    "Execution",
    "FRePo",
    "GCond",
    "Graph",
    "GraphArtifact",
    "GraphSetArtifact",
    "Graphs",
    "Held",
    "Identity",
    "Images",
    "Interactions",
    "KeepBest",
    "LogArtifact",
    "MultiFormation",
    "Net",
    "NotFinite",
    "Objective",
    "Recipe",
    "Snapshots",
    "Step",
    "Synthetic",
    "Trained",
    "accuracy",
    "condense",
    "coresets",
    "data",
    "evaluate",
    "experts",
    "fit",
    "iterate",
    "methods",
    "nets",
    "search",
    "spaces",
    "training",
    "with_gradient",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"condensery.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"condensery.{name}")
    else:
        raise AttributeError(f"module 'condensery' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
