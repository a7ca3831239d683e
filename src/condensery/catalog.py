"""What exists, by name: methods, coresets, data sets and networks, and where each comes from.

Only this module and the command line turn names into classes. Nothing heavy is imported before an entry is
asked for what it names, so listing the catalog costs nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
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
    """A selection of real images.

    Attributes:
        name: What the command line calls it.
        title: What tables call it.
        home: Where its function is, ``module:name``.
        needs: What it selects by: ``"features"``, or the training record that gives its scores.
        line: What it does, in a line.
        paper: The paper.
        year: Of the paper.
        url: Where to read it.
    """

    name: str
    title: str
    home: str
    needs: str
    line: str
    paper: str
    year: int
    url: str

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

_TABLES = (".csv", ".tsv", ".inter", ".parquet", ".pq", ".data", ".dat")


def is_log(spec: str) -> bool:
    """Whether data are a recommendation log: one with a name, a table, or a folder with `u.data` or LightGCN's files.

    Args:
        spec: A name or a path, as typed.

    Example:
        >>> is_log("generated-log"), is_log("digits")
        (True, False)
    """
    if spec.lower() in LOGS or spec.lower() in DATASETS or spec.startswith("hf:"):
        return spec.lower() in LOGS
    path = Path(spec)
    if path.is_dir():
        return bool((path / "u.data").is_file() or (adjacency(path, "train") and adjacency(path, "test")))
    return path.is_file() and Path(path.name.removesuffix(".gz")).suffix.lower() in _TABLES


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
    near = difflib.get_close_matches(name.lower(), list(names), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def method_or_coreset(name: str) -> Method | Coreset:
    """The entry of a method or a coreset.

    Raises:
        ValueError: Naming the ones there are.
    """
    entries: dict[str, Method | Coreset] = {**METHODS, **CORESETS}
    return find(entries, name, "method")


def log_entry(name: str) -> Method | Coreset:
    """The entry of a method or a selection for recommendation logs.

    Raises:
        ValueError: Naming the ones there are.
    """
    entries: dict[str, Method | Coreset] = {**LOG_METHODS, **LOG_CORESETS}
    return find(entries, name, "method for logs")


def network_name(name: str) -> str:
    """The proper spelling of a network's name.

    Raises:
        ValueError: Naming the ones there are.
    """
    return find({n: n for n in NETWORKS}, name, "network")


def _load(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)
