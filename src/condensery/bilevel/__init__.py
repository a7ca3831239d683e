"""Problems inside problems: derivatives through training on the synthetic set.

`unroll` differentiates the steps of the inner training. `implicit` differentiates its minimum, with the solvers of
`solve`. `response` has the derivative of that minimum in hyperparameters, which any number of outer losses share,
`gauss_newton` a curvature for it where weights are not at a minimum, and `learner` the ways to train and to have it.
`linearize` makes the inner problem convex, and `TangentRidge` solves that one exactly in its dual form.
"""

from condensery.bilevel.dual import Fit, Pulled, TangentRidge
from condensery.bilevel.gauss_newton import CompositeLoss, GaussNewton
from condensery.bilevel.implicit import Hessian, Hypergradient, clip_indirect, implicit
from condensery.bilevel.learner import AdamRule, Converged, Curving, Learner, Momentum, Rule, Steps, Training
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
    "CompositeLoss",
    "Converged",
    "Curvature",
    "Curving",
    "Direct",
    "Explicit",
    "Fit",
    "GaussNewton",
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
