"""What exists, by name: methods, coresets, data sets and networks, and where each comes from.

Only this module and the command line turn names into classes. Nothing heavy is imported before an entry is
asked for what it names, so listing the catalog costs nothing.
"""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar


@dataclass(frozen=True)
class Method:
    """A condensation method.

    Attributes:
        name: What the command line calls it.
        title: What tables call it.
        home: Where its class is, ``module:name``.
        line: What it does, in a line.
        paper: The paper.
        year: Of the paper.
        url: Where to read it.
    """

    name: str
    title: str
    home: str
    line: str
    paper: str
    year: int
    url: str

    def load(self) -> Any:
        """The class."""
        return _load(self.home)


@dataclass(frozen=True)
class Coreset:
    """A selection of real images, interactions, nodes or graphs.

    Attributes:
        name: What the command line calls it.
        title: What tables call it.
        home: Where its function is, ``module:name``.
        needs: What it selects by: ``"features"``, or the training record that gives its scores. For nodes the arguments
            that it takes beside the graph and the counts, of ``embeddings`` and ``generator``, with a space between.
            For graphs of a set ``"embeddings"``, or nothing.
        line: What it does, in a line.
        paper: The paper.
        year: Of the paper.
        url: Where to read it.
        merges: Whether it merges real nodes into new ones. Its function then takes how many there are to be in all, and
            gives a `Coarsened`.
    """

    name: str
    title: str
    home: str
    needs: str
    line: str
    paper: str
    year: int
    url: str
    merges: bool = False

    def load(self) -> Any:
        """The function."""
        return _load(self.home)


@dataclass(frozen=True)
class Dataset:
    """A data set that has a name.

    Attributes:
        name: What the command line calls it.
        title: What it is called elsewhere.
        home: Where its loader is, ``module:name``.
        classes: Number of classes.
        shape: Of an image, ``(channels, height, width)``.
        sizes: Images for training (validation included) and for testing.
        origin: Who made it.
        source: Where its `fetch.Source` is, ``module:name``; empty for data that comes with a library.
        arguments: Passed to the loader, and to the source where it is a function.
    """

    name: str
    title: str
    home: str
    classes: int
    shape: tuple[int, int, int]
    sizes: tuple[int, int]
    origin: str
    source: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)

    def load(self, **options: Any) -> Any:
        """The data (see `data.ImageData`), with the loader's own options.

        Raises:
            DataMissing: If it is not on this machine and cannot be fetched.
        """
        return _load(self.home)(**self.arguments, **options)

    def files(self) -> Any:
        """Its `fetch.Source`, or ``None`` if it needs no files."""
        if not self.source:
            return None
        source = _load(self.source)
        return source(**self.arguments) if callable(source) else source


@dataclass(frozen=True)
class LogSet:
    """A recommendation log that has a name.

    Attributes:
        name: What the command line calls it.
        title: What it is called elsewhere.
        home: Where its loader is, ``module:name``.
        sizes: Users, items and interactions.
        origin: Who made it.
        source: Where its `fetch.Source` is, ``module:name``; empty for a log that is generated.
    """

    name: str
    title: str
    home: str
    sizes: tuple[int, int, int]
    origin: str
    source: str = ""

    def load(self, root: str | None = None) -> Any:
        """The log (see `data.Log`).

        Args:
            root: The folder with its files, or ``None`` to look in the usual places.

        Raises:
            ValueError: If a folder is given for a log without files.
            DataMissing: If it is not on this machine and cannot be fetched.
        """
        if self.source:
            return _load(self.home)(root)
        if root is not None:
            raise ValueError(f"{self.name} is generated and has no files; leave the data root out.")
        return _load(self.home)().log

    def files(self) -> Any:
        """Its `fetch.Source`, or ``None`` if it needs no files."""
        return _load(self.source) if self.source else None


@dataclass(frozen=True)
class NamedGraph:
    """A graph that has a name.

    Attributes:
        name: What the command line calls it.
        title: What it is called elsewhere.
        home: Where its loader is, ``module:name``.
        sizes: Nodes, edges, features and classes; of a set of graphs before these how many graphs.
        origin: Who made it.
        source: Where its `fetch.Source` is, ``module:name``; empty for a graph that is made here.
        drawn: Whether its split is drawn with a seed rather than published.
        arguments: Passed to the loader, and to the source where it is a function.
    """

    name: str
    title: str
    home: str
    sizes: tuple[int, ...]
    origin: str
    source: str = ""
    drawn: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)

    def load(self, root: str | None = None, **options: Any) -> Any:
        """The graph (see `data.GraphData`), with the loader's own options.

        Args:
            root: The folder with its files, or ``None`` to look in the usual places.
            options: ``fit``, ``inductive``, and ``seed`` where the split is drawn.

        Raises:
            ValueError: If a folder is given for a graph without files.
            DataMissing: If it is not on this machine and cannot be fetched.
        """
        if self.source:
            return _load(self.home)(root, **self.arguments, **options)
        if root is not None:
            raise ValueError(f"{self.name} has no files; leave the data root out.")
        return _load(self.home)(**self.arguments, **options)

    def files(self) -> Any:
        """Its `fetch.Source`, or ``None`` if it needs no files."""
        if not self.source:
            return None
        source = _load(self.source)
        return source(**self.arguments) if callable(source) else source


@dataclass(frozen=True)
class NamedGraphs(NamedGraph):
    """A set of graphs that has a name.

    Attributes:
        places: Which two features of a node say where to draw it: down and to the right, each from -1 to 1; ``None``
            where none do.
    """

    places: tuple[int, int] | None = None


_CORESETS = "condensery.coresets"
_SOURCES = "condensery.data.fetch"
_SATM_PAPER = (
    "Gao et al., Enhancing Generalization via Sharpness-Aware Trajectory Matching for Dataset Condensation, arXiv"
)
_RCIG_PAPER = "Loo et al., Dataset Distillation with Convexified Implicit Gradients, ICML"

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            "dm",
            "DM",
            "condensery.methods:DM",
            "matches the mean features of real and synthetic images under random networks",
            "Zhao & Bilen, Dataset Condensation with Distribution Matching, WACV",
            2023,
            "https://arxiv.org/abs/2110.04181",
        ),
        Method(
            "dc",
            "DC",
            "condensery.methods:DC",
            "matches the gradients of real and synthetic images along a training run",
            "Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching, ICLR",
            2021,
            "https://arxiv.org/abs/2006.05929",
        ),
        Method(
            "dsa",
            "DSA",
            "condensery.methods:DSA",
            "DC with one random augmentation shared by both sides",
            "Zhao & Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML",
            2021,
            "https://arxiv.org/abs/2102.08259",
        ),
        Method(
            "bptt",
            "BPTT",
            "condensery.methods:BPTT",
            "differentiates the real loss through a short training run on the synthetic images",
            "Wang et al., Dataset Distillation, arXiv",
            2018,
            "https://arxiv.org/abs/1811.10959",
        ),
        Method(
            "mtt",
            "MTT",
            "condensery.methods:MTT",
            "matches segments of training runs on real images, from an expert's weights to its later ones",
            "Cazenavette et al., Dataset Distillation by Matching Training Trajectories, CVPR",
            2022,
            "https://arxiv.org/abs/2203.11932",
        ),
        Method(
            "ftd",
            "FTD",
            "condensery.methods:FTD",
            "MTT on experts that were trained towards flat minima, with averaged images",
            "Du et al., Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, CVPR",
            2023,
            "https://arxiv.org/abs/2211.11004",
        ),
        Method(
            "tesla",
            "TESLA",
            "condensery.methods:TESLA",
            "MTT in constant memory by an approximate gradient, with labels from the experts",
            "Cui et al., Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory, ICML",
            2023,
            "https://arxiv.org/abs/2211.10586",
        ),
        Method(
            "datm",
            "DATM",
            "condensery.methods:DATM",
            "matches early segments for few images and late ones for many, and learns soft labels",
            "Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, ICLR",
            2024,
            "https://arxiv.org/abs/2310.05773",
        ),
        Method(
            "mct",
            "MCT",
            "condensery.methods:MCT",
            "matches trajectories that were replaced by a few lines, which are small on disk and smooth",
            "Zhong et al., Towards Stable and Storage-efficient Dataset Distillation: Matching Convexified "
            "Trajectory, CVPR",
            2025,
            "https://arxiv.org/abs/2406.19827",
        ),
        Method(
            "satm",
            "SATM",
            "condensery.methods:SATM",
            "MTT that descends to flat minima in the images, through the last steps of a run only",
            _SATM_PAPER,
            2025,
            "https://arxiv.org/abs/2502.01865",
        ),
        Method(
            "satm-fi",
            "SATM-FI",
            "condensery.methods:SATM",
            "SATM on the flat experts of FTD",
            _SATM_PAPER,
            2025,
            "https://arxiv.org/abs/2502.01865",
        ),
        Method(
            "satm-da",
            "SATM-DA",
            "condensery.methods:SATMDA",
            "SATM with the segments and the learned labels of DATM",
            _SATM_PAPER,
            2025,
            "https://arxiv.org/abs/2502.01865",
        ),
        Method(
            "kip",
            "KIP",
            "condensery.methods:KIP",
            "fits kernel ridge regression on the synthetic images to the real ones",
            "Nguyen, Chen & Lee, Dataset Meta-Learning from Kernel Ridge-Regression, ICLR",
            2021,
            "https://arxiv.org/abs/2011.00050",
        ),
        Method(
            "rfad",
            "RFAD",
            "condensery.methods:RFAD",
            "KIP with the kernel of random convolutional features, at a learned temperature",
            "Loo et al., Efficient Dataset Distillation Using Random Feature Approximation, NeurIPS",
            2022,
            "https://arxiv.org/abs/2210.12067",
        ),
        Method(
            "frepo",
            "FRePo",
            "condensery.methods:FRePo",
            "fits the last layer of partly trained networks in closed form",
            "Zhou, Nezhadarya & Ba, Dataset Distillation using Neural Feature Regression, NeurIPS",
            2022,
            "https://arxiv.org/abs/2206.00719",
        ),
        Method(
            "vig",
            "VIG",
            "condensery.methods:VIG",
            "differentiates the end of training on the synthetic images implicitly",
            _RCIG_PAPER,
            2023,
            "https://arxiv.org/abs/2302.06755",
        ),
        Method(
            "cig",
            "CIG",
            "condensery.methods:CIG",
            "VIG on linearised networks, whose training is convex",
            _RCIG_PAPER,
            2023,
            "https://arxiv.org/abs/2302.06755",
        ),
        Method(
            "rcig",
            "RCIG",
            "condensery.methods:RCIG",
            "CIG with the last layer in closed form: FRePo with the gradient that it leaves out",
            _RCIG_PAPER,
            2023,
            "https://arxiv.org/abs/2302.06755",
        ),
    )
}

CALIBRATIONS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            "hcdc",
            "HCDC",
            "condensery.search:Calibration",
            "makes validation images under which hyperparameters rank as under the real ones",
            "Ding et al., Calibrated Dataset Condensation for Faster Hyperparameter Search, arXiv",
            2024,
            "https://arxiv.org/abs/2405.17535",
        ),
    )
}
"""Methods that make validation data for searches, beside a condensed training set."""

CORESETS: dict[str, Coreset] = {
    c.name: c
    for c in (
        Coreset(
            "uniform",
            "Uniform",
            f"{_CORESETS}:uniform",
            "features",
            "takes images of each class at random",
            "",
            0,
            "",
        ),
        Coreset(
            "herding",
            "Herding",
            f"{_CORESETS}:herding",
            "features",
            "keeps the mean of the selected near the class mean",
            "Welling, Herding Dynamical Weights to Learn, ICML",
            2009,
            "https://doi.org/10.1145/1553374.1553517",
        ),
        Coreset(
            "k-center",
            "k-center",
            f"{_CORESETS}:k_center",
            "features",
            "takes the image farthest from those selected",
            "Sener & Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR",
            2018,
            "https://arxiv.org/abs/1708.00489",
        ),
        Coreset(
            "k-means",
            "k-means",
            f"{_CORESETS}:k_means",
            "features",
            "takes the image nearest to each cluster's centre",
            "Lloyd, Least Squares Quantization in PCM, IEEE Trans. Inf. Theory",
            1982,
            "https://doi.org/10.1109/TIT.1982.1056489",
        ),
        Coreset(
            "facility-location",
            "Facility location",
            f"{_CORESETS}:facility_location",
            "features",
            "keeps every image similar to a selected one (lazy greedy)",
            "Mirzasoleiman, Bilmes & Leskovec, Coresets for Data-efficient Training, ICML",
            2020,
            "https://arxiv.org/abs/1906.01827",
        ),
        Coreset(
            "forgetting",
            "Forgetting",
            f"{_CORESETS}:forgetting",
            "correct",
            "takes the images that training keeps losing",
            "Toneva et al., An Empirical Study of Example Forgetting, ICLR",
            2019,
            "https://arxiv.org/abs/1812.05159",
        ),
        Coreset(
            "grand",
            "GraNd",
            f"{_CORESETS}:top",
            "grand",
            "takes the images with the largest gradients at initialisation",
            "Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet, NeurIPS",
            2021,
            "https://arxiv.org/abs/2107.07075",
        ),
        Coreset(
            "el2n",
            "EL2N",
            f"{_CORESETS}:top",
            "el2n",
            "takes the images with the largest errors early in training",
            "Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet, NeurIPS",
            2021,
            "https://arxiv.org/abs/2107.07075",
        ),
    )
}

_EMNIST = {  # classes, training and test images
    "balanced": (47, 112_800, 18_800),
    "byclass": (62, 697_932, 116_323),
    "bymerge": (47, 697_932, 116_323),
    "digits": (10, 240_000, 40_000),
    "letters": (26, 124_800, 20_800),
    "mnist": (10, 60_000, 10_000),
}


def _small_grey(name: str, title: str, loader: str, origin: str) -> Dataset:
    home, source = f"condensery.data:{loader}", f"{_SOURCES}:{loader.upper()}"
    return Dataset(name, title, home, 10, (1, 28, 28), (60_000, 10_000), origin, source)


def _emnist(split: str) -> Dataset:
    classes, train, test = _EMNIST[split]
    return Dataset(
        f"emnist-{split}",
        f"EMNIST {split}",
        "condensery.data:emnist",
        classes,
        (1, 28, 28),
        (train, test),
        "Cohen et al. 2017",
        f"{_SOURCES}:emnist_source",
        {"split": split},
    )


def _colour(
    name: str, title: str, loader: str, classes: int, side: int, sizes: tuple[int, int], origin: str
) -> Dataset:
    home, source = f"condensery.data:{loader}", f"{_SOURCES}:{loader.upper()}"
    return Dataset(name, title, home, classes, (3, side, side), sizes, origin, source)


DATASETS: dict[str, Dataset] = {
    d.name: d
    for d in (
        Dataset("digits", "Digits", "condensery.data:digits", 10, (1, 8, 8), (1_396, 401), "with scikit-learn"),
        _small_grey("mnist", "MNIST", "mnist", "LeCun et al. 1998"),
        _small_grey("fashion-mnist", "Fashion-MNIST", "fashion_mnist", "Xiao et al. 2017"),
        _small_grey("kmnist", "Kuzushiji-MNIST", "kmnist", "Clanuwat et al. 2018"),
        *(_emnist(split) for split in _EMNIST),
        _colour("cifar10", "CIFAR-10", "cifar10", 10, 32, (50_000, 10_000), "Krizhevsky 2009"),
        _colour("cifar100", "CIFAR-100", "cifar100", 100, 32, (50_000, 10_000), "Krizhevsky 2009"),
        _colour("tiny-imagenet", "Tiny-ImageNet", "tiny_imagenet", 200, 64, (100_000, 10_000), "Le & Yang 2015"),
    )
}

NETWORKS: tuple[str, ...] = (
    "ConvNet",
    "AlexNet",
    "VGG11",
    "VGG11Narrow",
    "ResNet18",
    "ResNet18Flat",
    "ResNet18AP",
    "MLP",
    "LeNet",
    "CellNet",
)
"""Names in `nets.VISION`; a test holds the two together."""

GRAPH_NETWORKS: tuple[str, ...] = (
    "GCN",
    "SAGE",
    "GAT",
    "GIN",
    "SGC",
    "ChebNet",
    "APPNP",
    "GDC",
    "GraphTransformer",
    "NodeMLP",
    "Polynomial",
)
"""Names in `nets.GRAPH`; the same test."""

POOLED_NETWORKS: tuple[str, ...] = ("PooledGCN", "PooledSGC", "PooledGIN", "PooledMLP")
"""Names in `nets.POOLED`; the same test."""


LOG_METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            "dconrec",
            "DConRec",
            "condensery.methods:DConRec",
            "learns which interactions to keep, among those recorded and those that a proxy adds",
            "Wu et al., Dataset Condensation for Recommendation, arXiv",
            2023,
            "https://arxiv.org/abs/2310.01038",
        ),
        Method(
            "doscond-rec",
            "DosCond (logs)",
            "condensery.methods:DosCondRec",
            "keeps interactions whose BPR gradient matches that of the whole log, in one step",
            "Jin et al., Condensing Graphs via One-Step Gradient Matching, KDD",
            2022,
            "https://arxiv.org/abs/2206.07746",
        ),
    )
}
"""Methods that condense recommendation logs."""

LOG_CORESETS: dict[str, Coreset] = {
    c.name: c
    for c in (
        Coreset(
            "random",
            "Random",
            f"{_CORESETS}.interactions:random",
            "",
            "takes interactions at random",
            "",
            0,
            "",
        ),
        Coreset(
            "majority",
            "Majority",
            f"{_CORESETS}.interactions:majority",
            "",
            "takes all interactions of the users with the fewest",
            "Wu et al., Dataset Condensation for Recommendation, arXiv",
            2023,
            "https://arxiv.org/abs/2310.01038",
        ),
        Coreset(
            "svp",
            "SVP-CF",
            f"{_CORESETS}.interactions:svp",
            "proxy",
            "takes the interactions that a proxy ranks worst while it trains",
            "Sachdeva et al., On Sampling Collaborative Filtering Datasets, WSDM",
            2022,
            "https://doi.org/10.1145/3488560.3498439",
        ),
        Coreset(
            "proxy-best",
            "Proxy's best",
            "condensery.methods.dconrec:proxy_best",
            "proxy",
            "takes what a trained proxy ranks first: recorded interactions and ones that nobody recorded",
            "",
            0,
            "",
        ),
    )
}
"""Selections of a recommendation log's interactions."""

LOGS: dict[str, LogSet] = {
    log.name: log
    for log in (
        LogSet("generated-log", "Generated log", "condensery.data:generated_log", (584, 400, 11_151), "generated here"),
        LogSet(
            "movielens-100k",
            "MovieLens 100K",
            "condensery.data:movielens_100k",
            (943, 1_682, 100_000),
            "Harper & Konstan 2015",
            "condensery.data.interaction_files:MOVIELENS_100K",
        ),
    )
}

_GCOND_PAPER = "Jin et al., Graph Condensation for Graph Neural Networks, ICLR"

GRAPH_METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            "gcond",
            "GCond",
            "condensery.methods:GCond",
            "matches gradients class by class; edges are a function of the learned features",
            _GCOND_PAPER,
            2022,
            "https://arxiv.org/abs/2110.07580",
        ),
        Method(
            "gcond-x",
            "GCond-X",
            "condensery.methods:GCond",
            "GCond without edges: the learned features carry everything",
            _GCOND_PAPER,
            2022,
            "https://arxiv.org/abs/2110.07580",
        ),
        Method(
            "doscond",
            "DosCond",
            "condensery.methods:DosCond",
            "GCond at the initial weights only, a new network at each step",
            "Jin et al., Condensing Graphs via One-Step Gradient Matching, KDD",
            2022,
            "https://arxiv.org/abs/2206.07746",
        ),
        Method(
            "gcdm",
            "GCDM",
            "condensery.methods:GCDM",
            "matches mean representations class by class, in every hidden layer",
            "Liu et al., Graph Condensation via Receptive Field Distribution Matching, arXiv",
            2022,
            "https://arxiv.org/abs/2206.13697",
        ),
        Method(
            "sfgc",
            "SFGC",
            "condensery.methods:SFGC",
            "nodes without edges that lead a network the way of experts trained on the whole graph",
            "Zheng et al., Structure-free Graph Condensation, NeurIPS",
            2023,
            "https://arxiv.org/abs/2306.02664",
        ),
        Method(
            "geom",
            "GEOM",
            "condensery.methods:GEOM",
            "SFGC with experts that see easy nodes first, later starts by and by, and learned labels",
            "Zhang et al., Toward Lossless Graph Condensation via Expanding Window Matching, ICML",
            2024,
            "https://arxiv.org/abs/2402.05011",
        ),
    )
}
"""Methods that condense a graph whose nodes are classified."""

GRAPH_CORESETS: dict[str, Coreset] = {
    c.name: c
    for c in (
        Coreset(
            "random",
            "Random",
            f"{_CORESETS}.graphs:random",
            "generator",
            "takes nodes of each class at random",
            "",
            0,
            "",
        ),
        Coreset(
            "herding",
            "Herding",
            f"{_CORESETS}.graphs:herding",
            "embeddings",
            "keeps the mean embedding of the selected near the class mean",
            "Welling, Herding Dynamical Weights to Learn, ICML",
            2009,
            "https://doi.org/10.1145/1553374.1553517",
        ),
        Coreset(
            "k-center",
            "k-center",
            f"{_CORESETS}.graphs:k_center",
            "embeddings generator",
            "takes the node farthest from those selected",
            "Sener & Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR",
            2018,
            "https://arxiv.org/abs/1708.00489",
        ),
        Coreset(
            "degree",
            "Degree",
            f"{_CORESETS}.graphs:degree",
            "",
            "takes the nodes with the most edges",
            "",
            0,
            "",
        ),
        Coreset(
            "pagerank",
            "PageRank",
            f"{_CORESETS}.graphs:pagerank",
            "",
            "takes the nodes where a random walk is most often",
            "Brin & Page, The Anatomy of a Large-Scale Hypertextual Web Search Engine, WWW",
            1998,
            "https://doi.org/10.1016/S0169-7552(98)00110-X",
        ),
        Coreset(
            "coarsening",
            "Coarsening",
            f"{_CORESETS}.coarsening:coarsen",
            "generator",
            "merges nodes that the low frequencies of the graph hardly tell apart",
            "Loukas, Graph Reduction with Spectral and Cut Guarantees, JMLR",
            2019,
            "https://jmlr.org/papers/v20/18-680.html",
            merges=True,
        ),
    )
}
"""Selections of a graph's nodes, each with the edges among them; and coarsening, which merges nodes instead."""


def _planetoid(name: str, title: str, sizes: tuple[int, int, int, int]) -> NamedGraph:
    home, source = "condensery.data:planetoid", "condensery.data.graph_pyg:planetoid_source"
    return NamedGraph(name, title, home, sizes, "Yang et al. 2016", source, arguments={"name": name})


GRAPHS: dict[str, NamedGraph] = {
    graph.name: graph
    for graph in (
        NamedGraph(
            "digits-graph",
            "Digits, nearest neighbours",
            "condensery.data:digits_graph",
            (1_797, 9_927, 64, 10),
            "with scikit-learn",
            drawn=True,
        ),
        _planetoid("cora", "Cora", (2_708, 5_278, 1_433, 7)),
        _planetoid("citeseer", "CiteSeer", (3_327, 4_552, 3_703, 6)),
        _planetoid("pubmed", "PubMed", (19_717, 44_324, 500, 3)),
        NamedGraph(
            "amazon-photo",
            "Amazon-Photo",
            "condensery.data:amazon_photo",
            (7_650, 119_081, 745, 8),
            "Shchur et al. 2018",
            "condensery.data.named_graphs:AMAZON_PHOTO",
            drawn=True,
        ),
        NamedGraph(
            "ogbn-arxiv",
            "ogbn-arxiv",
            "condensery.data:ogbn_arxiv",
            (169_343, 1_157_799, 128, 40),
            "Hu et al. 2020",
            "condensery.data.named_graphs:OGBN_ARXIV",
        ),
    )
}

GRAPH_SET_METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            "doscond-graphs",
            "DosCond (graphs)",
            "condensery.methods:DosCondGraphs",
            "matches gradients at the initial weights, by small graphs whose edges are drawn",
            "Jin et al., Condensing Graphs via One-Step Gradient Matching, KDD",
            2022,
            "https://arxiv.org/abs/2206.07746",
        ),
    )
}
"""Methods that condense a set of graphs, each with a class."""

GRAPH_SET_CORESETS: dict[str, Coreset] = {
    c.name: c
    for c in (
        Coreset(
            "random",
            "Random",
            f"{_CORESETS}:uniform",
            "",
            "takes graphs of each class at random",
            "",
            0,
            "",
        ),
        Coreset(
            "herding",
            "Herding",
            f"{_CORESETS}:herding",
            "embeddings",
            "keeps the mean embedding of the selected graphs near the class mean",
            "Welling, Herding Dynamical Weights to Learn, ICML",
            2009,
            "https://doi.org/10.1145/1553374.1553517",
        ),
        Coreset(
            "k-center",
            "k-center",
            f"{_CORESETS}:k_center",
            "embeddings",
            "takes the graph farthest from those selected",
            "Sener & Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR",
            2018,
            "https://arxiv.org/abs/1708.00489",
        ),
    )
}
"""Selections of a set's graphs."""

GRAPH_SETS: dict[str, NamedGraphs] = {
    graphs.name: graphs
    for graphs in (
        NamedGraphs(
            "digit-graphs",
            "Digits, graphs of their pixels",
            "condensery.data:digit_graphs",
            (1_797, 48_401, 119_041, 3, 10),
            "with scikit-learn",
            drawn=True,
            places=(1, 2),
        ),
    )
}

_TABLES = (".csv", ".tsv", ".inter", ".parquet", ".pq", ".data", ".dat")


def is_log(spec: str) -> bool:
    """Whether data are a recommendation log: one with a name, a table, or a folder with `u.data` or LightGCN's files.

    Args:
        spec: A name or a path, as typed.

    Example:
        >>> is_log("generated-log"), is_log("digits")
        (True, False)
    """
    if _is_named(spec):
        return spec.lower() in LOGS
    path = Path(spec)
    if path.is_dir():
        return bool((path / "u.data").is_file() or (adjacency(path, "train") and adjacency(path, "test")))
    return path.is_file() and Path(path.name.removesuffix(".gz")).suffix.lower() in _TABLES


def is_graph(spec: str) -> bool:
    """Whether data are a graph: one with a name, or a path of which `graph_layout` knows the layout.

    Args:
        spec: A name or a path, as typed.

    Example:
        >>> is_graph("digits-graph"), is_graph("digits")
        (True, False)
    """
    if _is_named(spec):
        return spec.lower() in GRAPHS
    return graph_layout(Path(spec)) is not None


def is_graph_set(spec: str) -> bool:
    """Whether data are a set of graphs: one with a name, or a folder in the layout of TU Dortmund's collection.

    Args:
        spec: A name or a path, as typed.

    Example:
        >>> is_graph_set("digit-graphs"), is_graph_set("digits-graph")
        (True, False)
    """
    if _is_named(spec):
        return spec.lower() in GRAPH_SETS
    folder = Path(spec)
    return any(
        (path.parent / f"{path.name.removesuffix('_A.txt')}_graph_indicator.txt").is_file()
        for place in (folder, folder / "raw")
        for path in place.glob("*_A.txt")
    )


def _is_named(spec: str) -> bool:
    """Whether data have a name, here or on the Hugging Face hub."""
    return spec.lower() in {**LOGS, **DATASETS, **GRAPHS, **GRAPH_SETS} or spec.startswith("hf:")


def graph_layout(path: Path) -> str | None:
    """How a graph lies on the disk: ``npz``, ``tables``, ``ogb``, ``planetoid`` or ``graphsaint``.

    Args:
        path: A file or a folder.

    Returns:
        The layout, ``None`` where there is no graph.
    """
    if path.is_file() and path.suffix == ".npz":
        return "npz" if _has_edges(path) else None
    if not path.is_dir():
        return None
    if (path / "raw" / "edge.csv.gz").is_file():
        return "ogb"
    if (path / "adj_full.npz").is_file():
        return "graphsaint"
    if any(path.glob("ind.*.graph")) or any(path.glob("raw/ind.*.graph")):
        return "planetoid"
    return "tables" if tables_of(path) is not None else None


def tables_of(folder: Path) -> tuple[Path, Path] | None:
    """The tables of a graph in a folder: ``edges.csv`` and ``nodes.csv``, or the same as TSV or gzipped."""
    endings = [f"{ending}{packed}" for packed in ("", ".gz") for ending in (".csv", ".tsv")]
    found = [
        next((folder / f"{name}{end}" for end in endings if (folder / f"{name}{end}").is_file()), None)
        for name in ("edges", "nodes")
    ]
    return (found[0], found[1]) if found[0] is not None and found[1] is not None else None


def _has_edges(path: Path) -> bool:
    """Whether an npz file has arrays of edges, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False  # who reads it says what is wrong with it
    return bool(names & {"edge_index", "edges", "adj_indptr"}) or any(
        {a, b} <= names for a, b in (("src", "dst"), ("row", "col"), ("source", "target"))
    )


class Kind(StrEnum):
    """What data are made of."""

    IMAGES = "images"
    LOG = "recommendation logs"
    GRAPH = "graphs"
    GRAPH_SET = "sets of graphs"


@dataclass(frozen=True)
class Domain:
    """What there is for one kind of data.

    Attributes:
        kind: Which.
        holds: What data of that kind are, after their name.
        methods: Methods for it.
        coresets: Selections.
        data: Data with a name.
        usual: The method to begin with.
    """

    kind: Kind
    holds: str
    methods: Mapping[str, Method]
    coresets: Mapping[str, Coreset]
    data: Mapping[str, Any]
    usual: str

    @property
    def names(self) -> list[str]:
        """Of all methods and coresets."""
        return [*self.methods, *self.coresets]

    def has(self, name: str) -> bool:
        """Whether there is a method or coreset of that name, whatever its case."""
        return name.lower() in self.names

    def entry(self, name: str) -> Method | Coreset:
        """A method or coreset.

        Raises:
            ValueError: Naming the ones there are.
        """
        entries: dict[str, Method | Coreset] = {**self.methods, **self.coresets}
        return find(entries, name, "method" if self.kind is Kind.IMAGES else f"method for {_SHORT[self.kind]}")


_SHORT = {Kind.LOG: "logs", Kind.GRAPH: "graphs", Kind.GRAPH_SET: "sets of graphs"}

DOMAINS: dict[Kind, Domain] = {
    domain.kind: domain
    for domain in (
        Domain(Kind.IMAGES, "holds images", METHODS, CORESETS, DATASETS, "dm"),
        Domain(Kind.LOG, "is a recommendation log", LOG_METHODS, LOG_CORESETS, LOGS, "dconrec"),
        Domain(Kind.GRAPH, "is a graph", GRAPH_METHODS, GRAPH_CORESETS, GRAPHS, "gcond"),
        Domain(
            Kind.GRAPH_SET,
            "is a set of graphs",
            GRAPH_SET_METHODS,
            GRAPH_SET_CORESETS,
            GRAPH_SETS,
            "doscond-graphs",
        ),
    )
}


def kind_of(spec: str) -> Kind | None:
    """Of which kind data are, ``None`` if there are none of that name or path.

    Args:
        spec: A name or a path, as typed.

    Example:
        >>> kind_of("cora").value, kind_of("cifar10").value, kind_of("nowhere")
        ('graphs', 'images', None)
    """
    if is_log(spec):
        return Kind.LOG
    if is_graph(spec):
        return Kind.GRAPH
    if is_graph_set(spec):
        return Kind.GRAPH_SET
    path = Path(spec)
    named = spec.lower() in DATASETS or spec.startswith("hf:")
    return Kind.IMAGES if named or path.is_dir() or (path.is_file() and path.suffix == ".npz") else None


def adjacency(folder: Path, part: str) -> list[Path]:
    """The files of a folder that may be a part (``train``, ``test``) of a log in LightGCN's layout."""
    return sorted({*folder.glob(f"{part}.txt*"), *folder.glob(f"*_{part}.txt*")})


@dataclass(frozen=True)
class DataSource:
    """What data, in plain values.

    Attributes:
        spec: A data set's name, ``hf:NAME`` for one of the Hugging Face hub, or a path: a folder of images by
            class, a folder of idx files, or an ``.npz`` file. A name wins over a path; write ``./name`` for
            the path.
        root: The folder that holds a named data set's files, or ``None`` to look in the usual places.
        size: Side to which pictures are resized, for folders and the hub.
        validation: Share of the training images held out for validation.
        seed: Of that split.
    """

    spec: str
    root: str | None = None
    size: int | None = None
    validation: float = 0.1
    seed: int = 0

    @property
    def name(self) -> str:
        """What recipes call it: a data set's name, or the spec itself."""
        return self.spec.lower() if self.spec.lower() in DATASETS else self.spec

    @property
    def short(self) -> str:
        """A name fit for a folder's name."""
        last = Path(self.spec.removeprefix("hf:")).resolve().stem if self.name not in DATASETS else self.name
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in last) or "data"

    def open(self, *, preprocessing: Callable[..., Any] | None = None) -> Any:
        """The data (see `data.ImageData`).

        Args:
            preprocessing: Training images to preprocessing; default: the loader's own.

        Raises:
            ValueError: If there are no such data, or they cannot be read; the message names the fix.
        """
        options: dict[str, Any] = {
            "validation": self.validation,
            "seed": self.seed,
            "preprocessing": preprocessing,
        }
        if self.name in DATASETS:
            if self.size is not None:
                raise ValueError(f"{self.name} has images of one size; leave the size out.")
            named = DATASETS[self.name]
            return named.load(**options, **({"root": self.root} if named.source else {}))
        if self.root is not None:
            raise ValueError(f"The data root is for data sets with a name, which {self.spec!r} is not; leave it out.")
        loader, takes_size = self._loader()
        if self.size is not None and not takes_size:
            raise ValueError(f"The images of {self.spec} keep their size; leave the size out.")
        target = self.spec.removeprefix("hf:")
        return _load(loader)(target, **options, **({"size": self.size} if takes_size else {}))

    def to_json(self) -> dict[str, Any]:
        """Plain data; a path is written in full, so that it is found from anywhere."""
        is_path = self.name not in DATASETS and not self.spec.startswith("hf:")
        return {**asdict(self), "spec": str(Path(self.spec).resolve()) if is_path else self.spec}

    def _loader(self) -> tuple[str, bool]:
        """What reads a path or a hub name, and whether it resizes."""
        if self.spec.startswith("hf:"):
            return "condensery.data:hub", True
        path = Path(self.spec)
        if path.is_dir():
            is_idx = any("images" in f.name and "idx3-ubyte" in f.name for f in path.iterdir())
            return ("condensery.data:idx", False) if is_idx else ("condensery.data:folder", True)
        if path.is_file() and path.suffix == ".npz":
            return "condensery.data:npz", False
        if path.exists():
            raise ValueError(f"{path} is not data: give a folder of images by class or of idx files, or an .npz file.")
        hint = did_you_mean(self.spec, DATASETS)
        raise ValueError(f"There is no data set or path {self.spec!r}{hint}; `condensery datasets` lists the names.")


T = TypeVar("T")


def find(entries: Mapping[str, T], name: str, what: str) -> T:
    """The entry called `name`, whatever its case.

    Args:
        entries: One of this module's tables, or several joined.
        name: As typed.
        what: What it should be, for the message.

    Raises:
        ValueError: Naming the ones there are, and the nearest.

    Example:
        >>> find(METHODS, "DM", "method").title
        'DM'
    """
    by_case = {key.lower(): value for key, value in entries.items()}
    if name.lower() in by_case:
        return by_case[name.lower()]
    raise ValueError(f"There is no {what} {name!r}{did_you_mean(name, entries)}; choose from {', '.join(entries)}.")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A question for an error message where one of `names` is close, else nothing.

    Example:
        >>> did_you_mean("cifar-10", DATASETS), did_you_mean("x", DATASETS)
        (' (did you mean cifar10?)', '')
    """
    by_case = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), list(by_case), 1)
    return f" (did you mean {by_case[near[0]]}?)" if near else ""


def method_or_coreset(name: str) -> Method | Coreset:
    """The entry of a method, a calibration or a coreset.

    Raises:
        ValueError: Naming the ones there are.
    """
    return CALIBRATIONS.get(name.lower()) or DOMAINS[Kind.IMAGES].entry(name)


def log_entry(name: str) -> Method | Coreset:
    """The entry of a method or a selection for recommendation logs.

    Raises:
        ValueError: Naming the ones there are.
    """
    return DOMAINS[Kind.LOG].entry(name)


def graph_entry(name: str) -> Method | Coreset:
    """The entry of a method or a selection for graphs.

    Raises:
        ValueError: Naming the ones there are.
    """
    return DOMAINS[Kind.GRAPH].entry(name)


def graph_set_entry(name: str) -> Method | Coreset:
    """The entry of a method or a selection for sets of graphs.

    Raises:
        ValueError: Naming the ones there are.
    """
    return DOMAINS[Kind.GRAPH_SET].entry(name)


def network_name(name: str) -> str:
    """The proper spelling of a network's name.

    Raises:
        ValueError: Naming the ones there are.
    """
    return find({n: n for n in NETWORKS}, name, "network")


def graph_network_name(name: str) -> str:
    """The proper spelling of a graph network's name.

    Raises:
        ValueError: Naming the ones there are.
    """
    return find({n: n for n in GRAPH_NETWORKS}, name, "graph network")


def pooled_network_name(name: str) -> str:
    """The proper spelling of the name of a network for whole graphs.

    Raises:
        ValueError: Naming the ones there are.
    """
    return find({n: n for n in POOLED_NETWORKS}, name, "network for whole graphs")


def _load(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)
