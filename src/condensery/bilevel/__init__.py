"""Problems inside problems: derivatives through training on the synthetic set.

`unroll` differentiates the steps of the inner training. `implicit` differentiates its minimum, with the solvers of
`solve`. `response` has the derivative of that minimum in hyperparameters, which any number of outer losses share, and
`learner` the ways to train and to have it. `linearize` makes the inner problem convex, and `TangentRidge` solves that
one exactly in its dual form.
"""

from condensery.bilevel.dual import Fit, Pulled, TangentRidge
from condensery.bilevel.implicit import Hessian, Hypergradient, clip_indirect, implicit
from condensery.bilevel.learner import AdamRule, Converged, Learner, Momentum, Rule, Steps, Training
from condensery.bilevel.linearize import Tangent, TangentAt, linearize
from condensery.bilevel.response import (
    Curvature,
    Explicit,
    MatrixFree,
    Parts,
    Response,
    hypergradient,
    respond,
    slopes,
    unrolled_response,
)
from condensery.bilevel.solve import (
    AdamSolve,
    AutoNeumann,
    AutoRate,
    Cg,
    Direct,
    Neumann,
    Solution,
    Solve,
    largest_eigenvalue,
    materialise,
)
from condensery.bilevel.unroll import first_order_pullback, pullback, unroll, unroll_light

__all__ = [
    "AdamRule",
    "AdamSolve",
    "AutoNeumann",
    "AutoRate",
    "Cg",
    "Converged",
    "Curvature",
    "Direct",
    "Explicit",
    "Fit",
    "Hessian",
    "Hypergradient",
    "Learner",
    "MatrixFree",
    "Momentum",
    "Neumann",
    "Parts",
    "Pulled",
    "Response",
    "Rule",
    "Solution",
    "Solve",
    "Steps",
    "Tangent",
    "TangentAt",
    "TangentRidge",
    "Training",
    "clip_indirect",
    "first_order_pullback",
    "hypergradient",
    "implicit",
    "largest_eigenvalue",
    "linearize",
    "materialise",
    "pullback",
    "respond",
    "slopes",
    "unroll",
    "unroll_light",
    "unrolled_response",
]
