"""Coresets: real examples that stand for their class.

Every selection is a function ``(features or scores, y, per_class, *, generator) -> indices``, int64, sorted
by class and then by order of selection, so the first k of a class are what a greedy method would select with
k.
"""

from condensery.coresets.budget import PerClass, class_counts
from condensery.coresets.facility import Similarity, facility_location
from condensery.coresets.forgetting import forgetting, forgetting_events
from condensery.coresets.grand import el2n_scores, grand_scores, last_layer_grand_scores
from condensery.coresets.herding import herding
from condensery.coresets.kcenter import k_center
from condensery.coresets.kmeans import k_means
from condensery.coresets.top import top
from condensery.coresets.uniform import uniform

__all__ = [
    "PerClass",
    "Similarity",
    "class_counts",
    "el2n_scores",
    "facility_location",
    "forgetting",
    "forgetting_events",
    "grand_scores",
    "herding",
    "k_center",
    "k_means",
    "last_layer_grand_scores",
    "top",
    "uniform",
]
