"""Selections of a graph's training nodes: at random, by their embedding, by degree, by PageRank.

Each gives node indices, int64, sorted by class and then by order of selection; `GraphData.subgraph` makes the induced
subgraph of them, which is the coreset that the literature on graph condensation compares with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from condensery.coresets.budget import PerClass
from condensery.coresets.herding import herding as herd
from condensery.coresets.kcenter import k_center as centres
from condensery.coresets.top import top
from condensery.coresets.uniform import uniform

if TYPE_CHECKING:
    from condensery.adjacency import Adjacency
    from condensery.data.graphs import GraphData

__all__ = ["degree", "herding", "k_center", "page_rank", "pagerank", "random"]


def random(data: GraphData, counts: PerClass, *, generator: Generator) -> Tensor:
    """Select training nodes at random.

    Args:
        data: The graph; what training may see of it (`GraphData.training_view`) if it is inductive.
        counts: How many of each class: one number, or one for each class.
        generator: A CPU generator.

    Returns:
        Node indices, int64.

    Raises:
        ValueError: If a class has fewer training nodes.
    """
    return data.train[uniform(None, data.train_y, counts, generator=generator)]


def herding(data: GraphData, counts: PerClass, embeddings: Tensor, *, unit_norm: bool = False) -> Tensor:
    """Select training nodes whose mean embedding is their class's: `condensery.coresets.herding`.

    Args:
        data: The graph.
        counts: How many of each class.
        embeddings: Of all nodes, ``[n, d]``: in the literature those of a GCN trained on the graph.
        unit_norm: Whether to divide each row by its norm first.

    Returns:
        Node indices, int64.

    Raises:
        ValueError: If a class has fewer training nodes or there is not one embedding for each node.
    """
    rows = _of_training_nodes(data, embeddings)
    return data.train[herd(rows, data.train_y, counts, unit_norm=unit_norm)]


def k_center(data: GraphData, counts: PerClass, embeddings: Tensor, *, generator: Generator) -> Tensor:
    """Select training nodes from which no other of their class is far: `condensery.coresets.k_center`.

    Args:
        data: The graph.
        counts: How many of each class.
        embeddings: Of all nodes, ``[n, d]``.
        generator: A CPU generator, for the first node of each class.

    Returns:
        Node indices, int64.

    Raises:
        ValueError: If a class has fewer training nodes or there is not one embedding for each node.
    """
    rows = _of_training_nodes(data, embeddings)
    return data.train[centres(rows, data.train_y, counts, generator=generator)]


def degree(data: GraphData, counts: PerClass) -> Tensor:
    """Select the training nodes with the largest (weighted) degree in the graph; ties go to the lower place in `train`.

    Args:
        data: The graph.
        counts: How many of each class.

    Returns:
        Node indices, int64.

    Raises:
        ValueError: If a class has fewer training nodes.
    """
    return data.train[top(data.adjacency.degrees(torch.float64)[data.train], data.train_y, counts)]


def pagerank(data: GraphData, counts: PerClass, *, damping: float = 0.85) -> Tensor:
    """Select the training nodes with the largest PageRank in the graph; ties go to the lower place in `train`.

    Args:
        data: The graph.
        counts: How many of each class.
        damping: See `page_rank`.

    Returns:
        Node indices, int64.

    Raises:
        ValueError: If a class has fewer training nodes, or for a damping outside of 0 to 1.
    """
    return data.train[top(page_rank(data.adjacency, damping=damping)[data.train], data.train_y, counts)]


@torch.no_grad()
def page_rank(graph: Adjacency, *, damping: float = 0.85, tolerance: float = 1e-10) -> Tensor:
    """How often a random walk is at each node (Brin & Page, 1998), by power iteration.

    The walk follows an edge with probability `damping`, by weight, and jumps to any node otherwise, as it does from a
    node without edges.

    Args:
        graph: The undirected graph of n nodes, weights not negative.
        damping: Probability to follow an edge, at least 0 and below 1.
        tolerance: Error of the ranks, in sum. An iteration shrinks it at least by the factor `damping`, from 2 at
            most, which says how many are made.

    Returns:
        float64 ``[n]`` with sum 1.

    Raises:
        ValueError: For another damping or tolerance.

    Example:
        >>> from condensery.adjacency import Adjacency
        >>> star = Adjacency.sparse(torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]]), 3)
        >>> page_rank(star).round(decimals=3).tolist()
        [0.486, 0.257, 0.257]
    """
    if not 0 <= damping < 1:
        raise ValueError(f"The damping is {damping}; give a probability below 1.")
    if not 0 < tolerance < 2:
        raise ValueError(f"The tolerance is {tolerance}; give a positive number below 2.")
    degrees = graph.degrees(torch.float64).double()
    alone = degrees == 0
    share = torch.where(alone, 0.0, 1 / torch.where(alone, 1.0, degrees))
    ranks = torch.full((graph.n,), 1 / graph.n, dtype=torch.float64, device=graph.device)
    for _ in range(math.ceil(math.log(tolerance / 2) / math.log(damping)) if damping else 1):
        walked = graph @ (ranks * share) + torch.where(alone, ranks, 0.0).sum() / graph.n
        ranks = damping * walked + (1 - damping) / graph.n
    return ranks / ranks.sum()


def _of_training_nodes(data: GraphData, embeddings: Tensor) -> Tensor:
    if len(embeddings) != data.num_nodes:
        raise ValueError(f"{len(embeddings)} embeddings do not fit {data.num_nodes} nodes; give one for each node.")
    return embeddings[data.train.to(embeddings.device)]
