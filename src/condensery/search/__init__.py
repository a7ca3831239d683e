"""Search of hyperparameters and architectures on condensed data in place of real data.

A search maximises a `Ground`: `ImageGround` or `NodeGround`, made of condensed or of real sets alike. `Settings` say
what is searched; an Optuna study (`objective`, `Study`), a `Grid`, `Random` configurations or a `Reinforce` controller
say how. `confirm` trains the best on real data and tests the winner.
"""

from condensery.search.calibration import Calibration, relaxed
from condensery.search.confirm import Confirmed, Cost, among_confirmed, confirm
from condensery.search.controller import Reinforce
from condensery.search.files import read_space, space_from, space_to
from condensery.search.folder import SearchFolder
from condensery.search.graphs import GraphFamily, NodeGround, graph_networks, node_likelihood
from condensery.search.grounds import Fitted, Ground
from condensery.search.images import ImageFamily, ImageGround, likelihood
from condensery.search.settings import Categorical, Cells, Config, Float, Infeasible, Int, Settings, When
from condensery.search.strategies import Grid, Random
from condensery.search.studies import Study, objective, trials_of
from condensery.search.trials import Strategy, Trial, attempt, best, explore

__all__ = [
    "Calibration",
    "Categorical",
    "Cells",
    "Config",
    "Confirmed",
    "Cost",
    "Fitted",
    "Float",
    "GraphFamily",
    "Grid",
    "Ground",
    "ImageFamily",
    "ImageGround",
    "Infeasible",
    "Int",
    "NodeGround",
    "Random",
    "Reinforce",
    "SearchFolder",
    "Settings",
    "Strategy",
    "Study",
    "Trial",
    "When",
    "among_confirmed",
    "attempt",
    "best",
    "confirm",
    "explore",
    "graph_networks",
    "likelihood",
    "node_likelihood",
    "objective",
    "read_space",
    "relaxed",
    "space_from",
    "space_to",
    "trials_of",
]
