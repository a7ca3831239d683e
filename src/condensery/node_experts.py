"""The experts of a graph's plan: how they are recorded, and where they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from condensery import experts
from condensery.data.graphs import GraphData
from condensery.experts import Curriculum, NodeRecording, Pace, PlainAdam, PlainSgd, origin_of_nodes
from condensery.net import Net
from condensery.recipes.graphs import GraphPlan, NodeExpertSettings

__all__ = ["experts_folder", "record_for", "recording_of"]


def recording_of(settings: NodeExpertSettings) -> NodeRecording:
    """How experts are trained, from plain settings.

    Raises:
        ValueError: If a value makes no sense.
    """
    if settings.optimizer == "adam":
        optimizer: PlainAdam | PlainSgd = PlainAdam(settings.lr, weight_decay=settings.weight_decay)
    else:
        optimizer = PlainSgd(settings.lr, settings.momentum, settings.weight_decay)
    curriculum = None
    if settings.pace is not None:
        curriculum = Curriculum(settings.share, settings.curriculum_steps, Pace(settings.pace))
    return NodeRecording(settings.steps // settings.every, settings.every, optimizer, curriculum, settings.seed)


def experts_folder(plan: GraphPlan, net: Net, data: GraphData) -> Path:
    """Where the experts of a plan go: plans that can share experts share them.

    Args:
        plan: Of a method that matches experts.
        net: The network to condense with.
        data: The graph.
    """
    settings = _settings_of(plan)
    origin = origin_of_nodes(net, data, recording_of(settings), None)
    whole = {**origin, "steps": settings.steps, "layout": settings.layout}
    digest = hashlib.blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=4).hexdigest()
    kind = settings.optimizer if settings.pace is None else f"{settings.optimizer}-{settings.pace}"
    return Path("runs") / "experts" / "-".join([_tame(data.name), str(plan.network["net"]), kind, digest])


def record_for(
    plan: GraphPlan, net: Net, data: GraphData, *, on_progress: Callable[[float, int], None] | None = None
) -> experts.Store:
    """The experts of a plan; those that its folder does not hold yet are recorded, and a stopped recording goes on.

    Args:
        plan: Of a method that matches experts.
        net: The network to condense with.
        data: The graph, on the device where they are trained and where segments are wanted.
        on_progress: See `experts.record_nodes`.

    Raises:
        ValueError: If the settings make no sense together, such as more points than the experts have.
        NotFinite: If an expert's parameters stop being finite numbers.
    """
    settings, needed = _settings_of(plan), _points_needed(plan)
    if needed * settings.every > settings.steps:
        raise ValueError(
            f"{plan.title} reaches point {needed} of its experts, which have {settings.steps // settings.every}; set "
            f"experts.steps={needed * settings.every}, or choose a smaller max_start or expert_epochs."
        )
    folder, layout = experts_folder(plan, net, data), experts.Layout(settings.layout)
    how, count = recording_of(settings), settings.count
    return experts.record_nodes(folder, net, data, how, count=count, layout=layout, on_progress=on_progress)


def _settings_of(plan: GraphPlan) -> NodeExpertSettings:
    if plan.experts is None:
        raise ValueError(f"{plan.title} matches no experts; choose a method that does, such as sfgc.")
    return plan.experts


def _points_needed(plan: GraphPlan) -> int:
    """The last point that a start and the way from it can reach."""
    start, way = plan.options["max_start"], plan.options["expert_epochs"]
    assert isinstance(start, int), "recipes read whole numbers"
    assert isinstance(way, int), "recipes read whole numbers"
    return start - 1 + way


def _tame(name: str) -> str:
    """A name fit for a folder's."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name) or "graph"
