"""PyTorch Geometric's graphs: its `Data` objects in and out, and Planetoid's raw files through its reader.

PyTorch Geometric (extra ``graph``) is imported when a function here is called, not before.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from condensery.data import fetch
from condensery.data._errors import one_line
from condensery.data.graph_features import AsGiven, FeatureFit, RowNormalised
from condensery.data.graphs import GraphData, Split, graph_data

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["from_pyg", "planetoid", "planetoid_source", "to_pyg"]

_ADDRESS = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data/"
_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
# Published files, in the order of _PARTS. Git's own number of a file where that is all that could be had.
_CHECKSUMS = {
    "Cora": (
        "md5:190831eee19d8f330d89d94b40a65c5a",
        "md5:78344284e3ff7fd24eb9c307d51351eb",
        "md5:b29c36916768e1d2f55391c1aa9317ac",
        "md5:48bf43f54fa5b86089a4bd0299795f10",
        "md5:c9083193a57057dd1238321e140194d7",
        "md5:125d70817fe1fdbfdcad991995e81579",
        "md5:b37c419cec179f45834467630c278e4c",
        "md5:9b822cae1d01f41e8bf8782e20367c0e",
    ),
    "CiteSeer": (
        "md5:baeb0100b5a8af8d41f928113ce0a4e5",
        "md5:8b99f50aa950fbbf9a7a2b71ff9cac97",
        "md5:c25ab826a7e95c0922ab625de705f7df",
        "md5:356894a73b7a7eff43c3580f2fcf92a4",
        "md5:28486b4b9c4ee076b4eee2febd89ba86",
        "md5:f0df7e5f859245e32987bfd224d01657",
        "md5:5f88483d5f5cc2b26b987bbbfb695005",
        "md5:70af39d4dff8aaa5c63f8dc526b16534",
    ),
    "PubMed": (
        "md5:2e93a89281c7597939cfb24976696f54",
        "md5:520bb2899bb8fb705181b8e34a973573",
        "md5:30d5abd15cf10e46ebd9514b256e0347",
        "md5:3082e367753e3a81c457f644316ca17d",
        "git:3b86bccf08111c37c632a9dd8ab63db25ea76361",
        "md5:ab5def164b4c5b33e215b6397a84ee4b",
        "md5:601ee2ffa59197989ff7267383a4ea46",
        "md5:57cdfacfa20179b9b92e077fba394d1c",
    ),
}


def planetoid(
    root: str | os.PathLike[str] | None = None,
    name: str = "cora",
    *,
    fit: FeatureFit = RowNormalised.of,
    inductive: bool = False,
) -> GraphData:
    """Cora, CiteSeer or PubMed with the public split (Yang et al., ICML 2016): 20 training nodes a class, 500, 1,000.

    The raw files are pickles, which run what they hold. They are compared with the checksums of the published ones
    first, and nothing else is unpickled. PyTorch Geometric's own reader then reads them.

    Args:
        root: A folder with the raw files ``ind.cora.x`` and so on, or with ``Cora/raw`` or ``planetoid/Cora/raw``
            under it, as PyTorch Geometric lays them out. By default see `condensery.data.fetch`; downloaded once if
            they are nowhere.
        name: ``"cora"``, ``"citeseer"`` or ``"pubmed"``.
        fit: Preprocessing of the features; the literature divides each row by its sum.
        inductive: See `GraphData`.

    Raises:
        DataMissing: If the files are nowhere and cannot be downloaded.
        ValueError: For another name, or files that are not the published ones.
        ImportError: Without PyTorch Geometric.
    """
    source = planetoid_source(name)
    title, folder = source.title, fetch.locate(source, root)
    for part, checksum in zip(_PARTS, _CHECKSUMS[title], strict=True):
        _check_published(folder / f"ind.{title.lower()}.{part}", checksum)
    _need_pyg()
    from torch_geometric.io import read_planetoid_data

    with warnings.catch_warnings():  # the files name places that scipy and numpy have since moved
        warnings.simplefilter("ignore")
        raw = read_planetoid_data(str(folder), title.lower())
    return from_pyg(raw, name=title.lower(), fit=fit, inductive=inductive)


def from_pyg(
    data: Any,
    *,
    name: str | None = None,
    column: int = 0,
    fit: FeatureFit = AsGiven.of,
    inductive: bool = False,
    seed: int = 0,
) -> GraphData:
    """A graph of PyTorch Geometric: a `Data` object, or a data set of one graph.

    ``x``, ``y``, ``edge_index`` (or a sparse ``adj_t``) and, if there, ``edge_weight`` (or ``edge_attr`` of one number
    an edge) and ``train_mask``, ``val_mask``, ``test_mask`` are used.

    Args:
        data: The object.
        name: The graph's name; by default the data set's.
        column: Which split, where the masks have several columns.
        fit: Preprocessing of the features.
        inductive: See `GraphData`.
        seed: Decides the split, where there are no masks.

    Raises:
        ValueError: If it is no graph of one kind of nodes, or lacks features, edges or labels; see `graph_data`.
        ImportError: Without PyTorch Geometric.
    """
    _need_pyg()
    from torch_geometric.data import Data, Dataset

    title = name or (str(getattr(data, "name", "")) if isinstance(data, Dataset) else "") or "graph"
    if isinstance(data, Dataset):
        if len(data) != 1:
            raise ValueError(f"The data set has {len(data)} graphs; give one of them.")
        data = data[0]
    if not isinstance(data, Data):
        raise ValueError(f"{type(data).__name__} is no graph of one kind of nodes; give a torch_geometric.data.Data.")
    if data.x is None:
        raise ValueError(f"{title} has no node features; set its x, for instance to one-hot degrees.")
    edges, weights = _edges_of(data, title)
    return graph_data(
        title,
        _dense(data.x).detach(),
        edges,
        data.y if isinstance(data.y, Tensor) else None,
        split=_split_of(data, column),
        weights=weights,
        fit=fit,
        inductive=inductive,
        seed=seed,
    )


def to_pyg(data: GraphData) -> Data:
    """The graph as PyTorch Geometric's `Data`: ``x``, ``edge_index``, ``edge_weight`` if weighted, ``y`` and masks.

    Raises:
        ImportError: Without PyTorch Geometric.
    """
    _need_pyg()
    from torch_geometric.data import Data
    from torch_geometric.utils import index_to_mask

    graph = Data(x=data.x, edge_index=data.edges, y=data.y)
    if data.weights is not None:
        graph.edge_weight = data.weights
    for key, part in zip(("train_mask", "val_mask", "test_mask"), data.split, strict=True):
        graph[key] = index_to_mask(part, size=data.num_nodes)
    return graph


def _need_pyg() -> None:
    try:
        import torch_geometric  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ImportError("this needs PyTorch Geometric; install it with: pip install 'condensery[graph]'") from error


def planetoid_source(name: str) -> fetch.Source:
    """Where one of Planetoid's graphs lies.

    Args:
        name: ``"cora"``, ``"citeseer"`` or ``"pubmed"``.

    Raises:
        ValueError: For another name.
    """
    titles = {title.lower(): title for title in _CHECKSUMS}
    if name.lower() not in titles:
        raise ValueError(f"There is no Planetoid graph {name!r}; choose cora, citeseer or pubmed.")
    title = titles[name.lower()]
    files = [f"ind.{title.lower()}.{part}" for part in _PARTS]
    remotes = tuple(
        fetch.Remote(file, (_ADDRESS + file,), checksum)
        for file, checksum in zip(files, _CHECKSUMS[title], strict=True)
    )
    folders = (f"planetoid/{title}/raw", f"{title}/raw", "raw")
    return fetch.Source(title, folders, tuple((file,) for file in files), remotes)


def _check_published(path: Path, checksum: str) -> None:
    try:
        found = fetch.matches(path, checksum)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)}); give a readable copy.") from error
    if not found:
        raise ValueError(f"{path} is not the published file, and a pickle may do harm; get it from {_ADDRESS}.")


def _edges_of(data: Any, title: str) -> tuple[Tensor, Tensor | None]:
    if isinstance(data.edge_index, Tensor):
        weights = getattr(data, "edge_weight", None)
        attribute = getattr(data, "edge_attr", None)
        if weights is None and isinstance(attribute, Tensor) and attribute.numel() == data.edge_index.shape[1]:
            weights = attribute
        return data.edge_index.as_subclass(Tensor), _flat(weights)
    transposed = getattr(data, "adj_t", None)
    if isinstance(transposed, Tensor) and transposed.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo):
        entries = transposed.to_sparse_coo().coalesce()
        return entries.indices().flip(0), entries.values().float()
    raise ValueError(f"{title} has no edges; set its edge_index, int64 [2, m].")


def _flat(weights: Tensor | None) -> Tensor | None:
    return None if weights is None else weights.detach().reshape(-1)


def _dense(x: Tensor) -> Tensor:
    return x if x.layout == torch.strided else x.to_dense()


def _split_of(data: Any, column: int) -> Split | None:
    masks = [getattr(data, key, None) for key in ("train_mask", "val_mask", "test_mask")]
    if masks[0] is None:
        return None
    parts = []
    for mask in masks:
        if mask is None:
            parts.append(torch.empty(0, dtype=torch.int64, device=masks[0].device))
            continue
        if mask.dim() == 2 and not 0 <= column < mask.shape[1]:
            raise ValueError(f"There are {mask.shape[1]} splits, not one numbered {column}; choose a smaller column.")
        chosen = mask[:, column] if mask.dim() == 2 else mask
        parts.append(chosen.bool().nonzero().flatten())
    return Split(*parts)
