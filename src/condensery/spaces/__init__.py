"""Search spaces: hyperparameters as a vector that training and validation losses are smooth functions of.

A `Space` is what HCDC condenses for. Some are bases, around a network: `Plain` (no hyperparameter), `Folds`,
`Filters`. Others are put around a space and add hyperparameters of training: `WeightDecay`, `LabelSmoothing`, `Blend`
(the strength of an augmentation), `LearningRate`.
"""

from condensery.spaces.around import Around, Blend, LabelSmoothing, LearningRate, WeightDecay
from condensery.spaces.filters import Filters
from condensery.spaces.folds import FoldInput, Folds, in_folds
from condensery.spaces.plain import Plain, cross_entropy
from condensery.spaces.space import Box, Domain, Simplices, Space, project_simplex

__all__ = [
    "Around",
    "Blend",
    "Box",
    "Domain",
    "Filters",
    "FoldInput",
    "Folds",
    "LabelSmoothing",
    "LearningRate",
    "Plain",
    "Simplices",
    "Space",
    "WeightDecay",
    "cross_entropy",
    "in_folds",
    "project_simplex",
]
