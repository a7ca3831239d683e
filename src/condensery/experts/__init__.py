"""Expert trajectories: networks trained on the real images, and where their parameters were after each epoch."""

from condensery.experts.convexified import Convexified, HeldConvexified
from condensery.experts.files import Layout
from condensery.experts.nodes import (
    Curriculum,
    NodeRecording,
    Pace,
    node_difficulty,
    record_node_expert,
    record_nodes,
)
from condensery.experts.optimizers import Asam, Gradient, Gsam, Optimizer, PlainAdam, PlainSgd, Sam
from condensery.experts.origin import origin_of, origin_of_nodes
from condensery.experts.record import Recording, record, record_expert, record_together
from condensery.experts.segment import Held, Segment, Trajectories
from condensery.experts.store import Store, convexify, convexify_held, open_experts
from condensery.experts.waypoints import Beta, Curve, Waypoints

__all__ = [
    "Asam",
    "Beta",
    "Convexified",
    "Curriculum",
    "Curve",
    "Gradient",
    "Gsam",
    "Held",
    "HeldConvexified",
    "Layout",
    "NodeRecording",
    "Optimizer",
    "Pace",
    "PlainAdam",
    "PlainSgd",
    "Recording",
    "Sam",
    "Segment",
    "Store",
    "Trajectories",
    "Waypoints",
    "convexify",
    "convexify_held",
    "node_difficulty",
    "open_experts",
    "origin_of",
    "origin_of_nodes",
    "record",
    "record_expert",
    "record_node_expert",
    "record_nodes",
    "record_together",
]
