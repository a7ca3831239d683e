"""k-means: the real example nearest to each cluster's centre."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Generator, Tensor

from condensery.coresets.budget import PerClass, over_classes, rows_of


def k_means(features: Tensor, y: Tensor, per_class: PerClass, *, generator: Generator, restarts: int = 3) -> Tensor:
    """Cluster each class into as many clusters as examples are wanted, and select an example for each centre.

    The centres choose in turn, the largest cluster first, the nearest example that is still free; so the
    selected are distinct and a prefix covers most of the class.

    Args:
        features: An embedding ``[n, ...]``, flattened to ``[n, d]``: pixels or a network's features.
        y: Class indices ``[n]``.
        per_class: How many of each class: one number, or one for each class.
        generator: A CPU generator, which seeds scikit-learn's k-means++.
        restarts: Runs of k-means a class, of which the best is kept.

    Returns:
        Indices into y, int64, sorted by class and then by order of selection; ties go to the lower index.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [8.0], [9.0]])
    >>> y = torch.zeros(5, dtype=torch.long)
    >>> sorted(k_means(x, y, 2, generator=torch.Generator().manual_seed(0)).tolist())
    [1, 3]
    """
    rows = rows_of(features, y)

    def pick(members: Tensor, count: int) -> Tensor:
        own = rows[members.to(rows.device)].double().cpu()
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        return _nearest_to_centres(own, _centres(own, count, seed, restarts))

    return over_classes(y, per_class, pick)


def _centres(rows: Tensor, count: int, seed: int, restarts: int) -> Tensor:
    """The centres ``[count, d]`` of the clusters of ``rows [m, d]``, the largest cluster first."""
    from sklearn.cluster import KMeans  # a second to import, so not before it is needed
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(count, n_init=restarts, random_state=seed)
    with warnings.catch_warnings():
        # Fewer distinct examples than clusters: some centres coincide, and take the copies one by one.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows.numpy())
    sizes = np.bincount(model.labels_, minlength=count)
    return torch.from_numpy(model.cluster_centers_[np.argsort(-sizes, kind="stable")])


def _nearest_to_centres(rows: Tensor, centres: Tensor) -> Tensor:
    taken = torch.zeros(len(rows), dtype=torch.bool)
    chosen = []
    for centre in centres:
        distances = (rows - centre).square().sum(dim=1).masked_fill(taken, torch.inf)
        # The two members of a cluster of two are equally near its centre: not for rounding to decide.
        best = (distances <= distances.min() * (1 + 1e-9)).int().argmax()
        taken[best] = True
        chosen.append(best)
    return torch.stack(chosen)
