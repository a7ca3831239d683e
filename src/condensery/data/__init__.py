"""Data as tensors on the device: images and their preprocessing, logs of interactions, graphs."""

from condensery.data._errors import DataMissing
from condensery.data.generated import GeneratedLog, generated_log
from condensery.data.graph_features import AsGiven, RowNormalised, StandardScaled
from condensery.data.graph_files import GraphColumns, graphsaint, ogb_csv
from condensery.data.graph_files import from_csv as graph_csv
from condensery.data.graph_files import from_npz as graph_npz
from condensery.data.graph_pyg import from_pyg, planetoid, to_pyg
from condensery.data.graph_sets import GraphSet, digit_graphs, graph_set, graph_set_from_pyg
from condensery.data.graph_splits import Split, stratified_split
from condensery.data.graphs import GraphData, digits_graph, graph_data
from condensery.data.images import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR10_STD_FREPO,
    CIFAR100_MEAN,
    CIFAR100_STD,
    ImageData,
    cifar10,
    cifar100,
    digits,
    emnist,
    fashion_mnist,
    folder,
    hub,
    idx,
    image_data,
    kmnist,
    mnist,
    npz,
    tiny_imagenet,
)
from condensery.data.interaction_files import Columns, Repeats, lightgcn, movielens_100k, read_adjacency, read_log
from condensery.data.interactions import Log, LogData, leave_one_out, split_by_time, split_by_user
from condensery.data.labelled import Labelled, stratified
from condensery.data.named_graphs import amazon_photo, ogbn_arxiv
from condensery.data.tu_files import tu_graphs
from condensery.data.whitening import (
    Fit,
    Identity,
    Prepared,
    Preprocessing,
    Standardise,
    Whiten,
    from_config,
    zca_absolute,
    zca_trace,
)

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "CIFAR10_STD_FREPO",
    "CIFAR100_MEAN",
    "CIFAR100_STD",
    "AsGiven",
    "Columns",
    "DataMissing",
    "Fit",
    "GeneratedLog",
    "GraphColumns",
    "GraphData",
    "GraphSet",
    "Identity",
    "ImageData",
    "Labelled",
    "Log",
    "LogData",
    "Prepared",
    "Preprocessing",
    "Repeats",
    "RowNormalised",
    "Split",
    "StandardScaled",
    "Standardise",
    "Whiten",
    "amazon_photo",
    "cifar10",
    "cifar100",
    "digit_graphs",
    "digits",
    "digits_graph",
    "emnist",
    "fashion_mnist",
    "folder",
    "from_config",
    "from_pyg",
    "generated_log",
    "graph_csv",
    "graph_data",
    "graph_npz",
    "graph_set",
    "graph_set_from_pyg",
    "graphsaint",
    "hub",
    "idx",
    "image_data",
    "kmnist",
    "leave_one_out",
    "lightgcn",
    "mnist",
    "movielens_100k",
    "npz",
    "ogb_csv",
    "ogbn_arxiv",
    "planetoid",
    "read_adjacency",
    "read_log",
    "split_by_time",
    "split_by_user",
    "stratified",
    "stratified_split",
    "tiny_imagenet",
    "to_pyg",
    "tu_graphs",
    "zca_absolute",
    "zca_trace",
]
