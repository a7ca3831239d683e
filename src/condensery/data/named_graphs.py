"""Graphs that have a name, found on this machine or downloaded once: Amazon-Photo and ogbn-arxiv.

Cora, CiteSeer and PubMed are in `condensery.data.graph_pyg`, the digits in `condensery.data.graphs`.
"""

from __future__ import annotations

import os
from dataclasses import replace

from condensery.data import fetch
from condensery.data.graph_features import AsGiven, FeatureFit, StandardScaled
from condensery.data.graph_files import from_npz, ogb_csv
from condensery.data.graphs import GraphData

__all__ = ["AMAZON_PHOTO", "OGBN_ARXIV", "amazon_photo", "ogbn_arxiv"]

AMAZON_PHOTO = fetch.Source(
    "Amazon-Photo",
    ("amazon-photo", "graphs", "Photo/raw", "amazon/Photo/raw"),
    (("amazon_electronics_photo.npz", "amazon_photo.npz"),),
    (
        fetch.Remote(
            "amazon_electronics_photo.npz",
            ("https://github.com/shchur/gnn-benchmark/raw/master/data/npz/amazon_electronics_photo.npz",),
            "git:97323743cb56aca9dd611f5b4b46862c1c9c6bd9",
        ),
    ),
)

OGBN_ARXIV = fetch.Source(
    "ogbn-arxiv",
    ("ogbn-arxiv", "ogbn_arxiv", "arxiv"),
    (("raw/edge.csv.gz",), ("raw/node-feat.csv.gz",), ("raw/node-label.csv.gz",), ("split/time/train.csv.gz",)),
    (
        fetch.Remote(
            "arxiv.zip",
            (
                "https://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip",
                "http://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip",
            ),
            "sha256:49f85c801589ecdcc52cfaca99693aaea7b8af16a9ac3f41dd85a5f3193fe276",
        ),
    ),
    "arxiv",
)


def amazon_photo(
    root: str | os.PathLike[str] | None = None,
    *,
    fit: FeatureFit = AsGiven.of,
    inductive: bool = False,
    seed: int = 0,
) -> GraphData:
    """Goods of a shop, joined where they are bought together (Shchur et al., 2018): 7,650 nodes of 8 classes.

    Nothing is published of its split: 20 training nodes of each class, 500 and 1,000 nodes are drawn.

    Args:
        root: See `condensery.data.fetch.locate`; the file is ``amazon_electronics_photo.npz`` or ``amazon_photo.npz``.
        fit: Preprocessing of the features, which are zeros and ones.
        inductive: See `GraphData`.
        seed: Decides the split.

    Raises:
        DataMissing: If it is nowhere and cannot be downloaded.
        ValueError: If the file is damaged.
    """
    folder = fetch.locate(AMAZON_PHOTO, root)
    path = next(place for name in AMAZON_PHOTO.needs[0] if (place := folder / name).is_file())
    return replace(from_npz(path, fit=fit, inductive=inductive, seed=seed), name="amazon-photo")


def ogbn_arxiv(
    root: str | os.PathLike[str] | None = None, *, fit: FeatureFit = StandardScaled.of, inductive: bool = False
) -> GraphData:
    """Papers of arXiv's computer science and who cites whom (Hu et al., 2020): 169,343 nodes of 40 classes.

    Args:
        root: See `condensery.data.fetch.locate`; the folder is as OGB's archive unpacks, with ``raw`` and ``split``.
        fit: Preprocessing of the features; the condensation literature standardises them.
        inductive: See `GraphData`.

    Raises:
        DataMissing: If it is nowhere and cannot be downloaded.
        ValueError: If a file is damaged.
    """
    folder = fetch.locate(OGBN_ARXIV, root)
    return replace(ogb_csv(folder, scheme="time", fit=fit, inductive=inductive), name="ogbn-arxiv")
