"""Search spaces: hyperparameters as a vector that training and validation losses are smooth functions of.

A `Space` is what HCDC condenses for. Some are bases, around a network: `Plain` (no hyperparameter), `Folds`,
`Filters`, `Cells` and `Alternatives` (which draw one architecture a call, by `Gumbel`), `Odds` (what such draws make on
average). Others are put around a space and add hyperparameters of training: `WeightDecay`, `LabelSmoothing`, `Blend`
(the strength of an augmentation), `LearningRate`. A `Composite` one knows the outputs that its training loss is a
function of.
"""

from condensery.spaces.architectures import Alternatives, Cells, Odds
from condensery.spaces.around import Around, Blend, LabelSmoothing, LearningRate, WeightDecay
from condensery.spaces.filters import Filters
from condensery.spaces.folds import FoldInput, Folds, in_folds
from condensery.spaces.gumbel import Gumbel, gumbel_noise
from condensery.spaces.plain import Plain, cross_entropy
from condensery.spaces.space import Box, Composite, Domain, Simplices, Space, composite, project_simplex

__all__ = [
    "Alternatives",
    "Around",
    "Blend",
    "Box",
    "Cells",
    "Composite",
    "Domain",
    "Filters",
    "FoldInput",
    "Folds",
    "Gumbel",
    "LabelSmoothing",
    "LearningRate",
    "Odds",
    "Plain",
    "Simplices",
    "Space",
    "WeightDecay",
    "composite",
    "cross_entropy",
    "gumbel_noise",
    "in_folds",
    "project_simplex",
]
