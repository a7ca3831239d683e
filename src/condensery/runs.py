"""A run on disk: a plan and data become an artifact in a folder; a run that was killed goes on from there.

>>> import tempfile
>>> from condensery import recipes
>>> source = DataSource("digits")
>>> plan = recipes.load("dm", "digits", 1, overrides=["steps=2", "batch_real=8"])
>>> run = build(plan, open_data(source), seed=0)
>>> folder = Folder(Path(tempfile.mkdtemp()) / "run")
>>> folder.claim(run.settings(source))
>>> [progress.step for progress in advance(run, folder)]
[1, 2]
>>> finish(run, folder, source).per_class
[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensery import catalog, experts, nets
from condensery.artifact import Artifact
from condensery.batch import Batch
from condensery.catalog import DataSource
from condensery.data import ImageData, Labelled
from condensery.data.whitening import Preprocessing, Standardise, Whiten, zca_absolute, zca_trace
from condensery.fitting import accuracy, fit
from condensery.journal import Journal, read
from condensery.keeping import keeping_best, kept_accuracy, kept_step
from condensery.loop import Objective, Snapshots, iterate, result
from condensery.methods import datm
from condensery.methods.regression import centred_one_hot
from condensery.net import Net
from condensery.planned_experts import as_object, describe_experts, open_for
from condensery.recipes import Plan
from condensery.recipes import values as words
from condensery.store import write_text
from condensery.synthetic import Formation, Identity, Images, MultiFormation, counts_per_class

# Pixels in a training set that is prepared once rather than at each draw: 256 MB of float32.
_PREPARE_UP_TO = 64 << 20


def open_data(source: DataSource, *, whiten: str = "none", device: torch.device | str = "cpu") -> ImageData:
    """The data on the device, with a whitening of `recipes.values.CHOICES` fitted on its training images."""
    fits = {"none": None, "zca": zca_absolute, "zca-trace": _standardised_zca}
    data: ImageData = source.open(preprocessing=fits[whiten]).to(device)
    _, height, width = data.image_shape
    if height != width:
        raise ValueError(f"The images of {data.name} are {height} x {width}; crop or pad them to squares.")
    return data


def pick_device(name: str) -> torch.device:
    """The device called `name`, or for ``"auto"`` a CUDA device if there is one.

    Raises:
        ValueError: If it is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("PyTorch sees no CUDA device on this machine; use --device cpu.")
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16: without them a CPU takes forty times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass
class Run:
    """A run in memory, ready for its first or next step.

    Attributes:
        plan: What is to be done.
        data: The data, on the device.
        seed: Of everything random but the data's split.
        network: The architecture.
        synthetic: The synthetic set.
        objective: The method.
        optimizer: Over the synthetic set.
        experts: What the experts are that the method matches, plain data; ``None`` where it matches none.
        calibration: The training set and the search space that a validation set is made for, plain data; ``None`` for
            a training set.
    """

    plan: Plan
    data: ImageData
    seed: int
    network: nn.Module
    synthetic: Images
    objective: Objective
    optimizer: torch.optim.Optimizer
    experts: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None

    @property
    def result(self) -> Images:
        """The synthetic set as it would be kept now: as it is, or what the method makes of it."""
        made: Images = result(self.synthetic, self.objective)
        return made

    def settings(self, source: DataSource) -> dict[str, Any]:
        """What makes this run another one if it changes, as plain data."""
        plan = self.plan.to_json()
        plan.pop("origin")
        settings = {
            "plan": plan,
            "data": source.to_json(),
            "seed": self.seed,
            "device": self.data.train.device.type,
        }
        parts = {"experts": self.experts, "calibration": self.calibration}
        return {**settings, **{name: dict(part) for name, part in parts.items() if part is not None}}


def build(plan: Plan, data: ImageData, *, seed: int = 0, experts: Path | None = None) -> Run:
    """Make the parts of a run.

    Args:
        plan: Of a method, not of a coreset.
        data: On the device where the run is to be, with its preprocessing.
        seed: Gives one generator to the start of the images and one to the method.
        experts: The folder of the experts that the method matches (see `planned_experts.experts_for`), if it matches
            any.

    Raises:
        ValueError: If the plan does not fit the data or the experts.
    """
    for_start, for_method = generators(seed, 2)
    network = build_network(plan.network, data)
    net, real = Net(build_network(_condensing(plan), data)), working(data.train)
    ways = open_for(plan, net, data, experts)
    synthetic = first_images(plan, net, real, for_start, ways)
    method = catalog.METHODS[plan.method].load()
    objective = method(net, real if ways is None else ways, for_method, **options_of(method, plan.options))
    judged = partial(_accuracy, plan, data, seed, network)
    objective = keeping_best(objective, plan.start, data.name, data.validation, judged, "images")
    optimizer, identity = objective.optimizer(synthetic), None if ways is None else describe_experts(ways)
    return Run(plan, data, seed, network, synthetic, objective, optimizer, identity)


def generators(seed: int, count: int) -> list[torch.Generator]:
    """Independent CPU generators from one seed."""
    if seed < 0:
        raise ValueError(f"The seed is {seed}; give a number of at least 0.")
    seeds = np.random.SeedSequence(seed).generate_state(count, np.uint64) >> np.uint64(1)
    return [torch.Generator().manual_seed(int(s)) for s in seeds]


def build_network(config: Mapping[str, Any], data: ImageData) -> nn.Module:
    """A network of a plan for the images and classes of the data."""
    channels, size, _ = data.image_shape
    return nets.build({**config, "channels": channels, "classes": data.num_classes, "size": size})


def _condensing(plan: Plan) -> dict[str, Any]:
    """The network of a plan as it is while condensing."""
    start, changes = plan.start, dict[str, Any]()
    if start.softplus is not None:
        changes |= {"activation": "softplus", "beta": start.softplus}
    if start.condensing_norm != "same":
        changes |= {"norm": start.condensing_norm}
    unknown = sorted(set(changes) - set(words.arguments_of(nets.VISION[str(plan.network["net"])])))
    if unknown:
        raise ValueError(
            f"{plan.network['net']} has no {unknown[0]} to change while condensing; set softplus=none and "
            "condensing_norm=same, or choose another network."
        )
    return {**plan.network, **changes}


def working(data: Labelled) -> Labelled:
    """The images prepared once, where that is worth its memory: if they are whitened, or few."""
    return data.prepared() if isinstance(data.prepare, Whiten) or data.x.numel() <= _PREPARE_UP_TO else data


class Folder:
    """Where a run keeps its files.

    Args:
        path: The folder; made when it is claimed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def artifact(self) -> Path:
        """The condensed set."""
        return self.path / "artifact.safetensors"

    @property
    def log(self) -> Path:
        """One JSON line a step."""
        return self.path / "log.jsonl"

    @property
    def picture(self) -> Path:
        """The condensed images."""
        return self.path / "picture.png"

    @property
    def settings(self) -> Path:
        """What the run is."""
        return self.path / "run.json"

    @property
    def scores(self) -> Path:
        """How good the set is, where it was evaluated."""
        return self.path / "scores.json"

    @property
    def snapshots(self) -> Path:
        """The folder of snapshots."""
        return self.path / "snapshots"

    @property
    def finished(self) -> bool:
        """Whether the artifact has been written."""
        return self.artifact.is_file()

    def claim(self, settings: Mapping[str, Any], *, resume: bool = False) -> None:
        """Take the folder for a run.

        Args:
            settings: What the run is, plain data.
            resume: Whether a run with these settings may be there already.

        Raises:
            ValueError: If something else is there.
        """
        if self.settings.is_file() and not self._begun:
            self.log.unlink(missing_ok=True)  # of a run that failed before its first snapshot: nothing to lose
        elif self.settings.is_file():
            if not resume:
                raise ValueError(
                    f"{self.path} holds a run already; add --resume to go on with it, or choose another --out."
                )
            self._check(settings)
            return
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(f"{self.path} exists and is not the folder of a run; choose another --out.")
        self.path.mkdir(parents=True, exist_ok=True)
        whole = {**settings, "threads": torch.get_num_threads()}
        write_text(self.settings, json.dumps(whole, indent=2) + "\n")

    @property
    def _begun(self) -> bool:
        return self.finished or any(self.snapshots.glob("step-*.safetensors"))

    def _check(self, settings: Mapping[str, Any]) -> None:
        try:
            found = json.loads(self.settings.read_text(encoding="utf-8"))
            before, now = flatten(found), flatten(json.loads(json.dumps(settings)))
        except (ValueError, AttributeError):
            raise ValueError(f"{self.settings} is damaged; choose another --out.") from None
        threads = before.pop("threads", None)
        changed = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if changed:
            k = changed[0]
            raise ValueError(
                f"The run in {self.path} has {k} = {_said(before, k)}, not {_said(now, k)}; resume it with "
                "the same settings, or choose another --out."
            )
        here = torch.get_num_threads()
        if threads != here and not self.finished:
            warnings.warn(
                f"The run began with {threads} threads and goes on with {here}: the result can differ in the "
                "last digits from that of a run that was never stopped; set "
                f"OMP_NUM_THREADS={threads} to have the same.",
                RuntimeWarning,
                stacklevel=3,
            )


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        step: Steps done.
        loss: The last loss that was read from the device, or ``None`` before the first.
        validation: The last validation accuracy, or ``None`` if it is not measured.
    """

    step: int
    loss: float | None
    validation: float | None


@dataclass(frozen=True)
class Watch:
    """What is kept and looked at while a run goes on; none of it changes the result.

    Args:
        snapshot_every: Steps between snapshots at most (they are also written once a minute).
        eval_every: Steps between measurements of validation accuracy; 0 for none.
        eval_budget: Share of the evaluation recipe's passes for those.
        tensorboard: Whether to write TensorBoard files too.
    """

    snapshot_every: int = 1000
    eval_every: int = 0
    eval_budget: float = 1.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.snapshot_every < 1 or self.eval_every < 0:
            raise ValueError("Give at least 1 step between snapshots and at least 0 between evaluations.")


def advance(run: Run, folder: Folder, watch: Watch | None = None) -> Iterator[Progress]:
    """Go on from the folder's last snapshot, or from the start, to the last step.

    Raises:
        NotFinite: If the method diverges; the snapshots stay.
        ValueError: If the snapshots are unusable.
    """
    watch, checked = watch or Watch(), False
    for progress in follow(run, folder, watch, validate=lambda: validation_accuracy(run, watch.eval_budget)):
        checked = checked or _check_learned(run)
        yield progress


class Runnable(Protocol):
    """A run of any kind in memory, as `follow` needs it."""

    @property
    def plan(self) -> Any:
        """What is to be done, with its `steps`."""

    @property
    def synthetic(self) -> Any:
        """What is learned."""

    @property
    def objective(self) -> Objective:
        """The method."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Over what is learned."""


def follow(run: Runnable, folder: Folder, watch: Watch, *, validate: Callable[[], float]) -> Iterator[Progress]:
    """The steps of a run that are left, logged, with snapshots and looks at the validation data.

    Args:
        run: What is to be done.
        folder: Claimed for it.
        watch: What is kept and looked at.
        validate: Measures what has been learned so far and touches nothing.

    Raises:
        NotFinite: If the method diverges; the snapshots stay.
        ValueError: If the snapshots are unusable.
    """
    board = folder.path / "tensorboard" if watch.tensorboard else None
    with Journal(folder.log, tensorboard=board) as journal:
        identity = json.loads(folder.settings.read_text(encoding="utf-8"))
        identity.pop("threads", None)
        snapshots = Logged(folder.snapshots, watch.snapshot_every, run=flatten(identity), journal=journal)
        validation, steps = None, run.plan.steps
        for step in iterate(run.synthetic, run.objective, run.optimizer, steps=steps, snapshots=snapshots):
            figures: dict[str, Any] = dict(getattr(run.objective, "figures", {}))
            if watch.eval_every and (step.number % watch.eval_every == 0 or step.number == steps):
                validation = figures["validation"] = validate()
            journal.add(step.number, step.loss, **figures)
            yield Progress(step.number, journal.last.loss if journal.last else None, validation)


def spent_on(folder: Folder, steps: int) -> dict[str, Any]:
    """What a run's log says of it, plain data: steps, seconds, the last loss."""
    entries = read(folder.log) if folder.log.is_file() else []
    last = entries[-1] if entries else None
    return {"steps": steps, "seconds": last.seconds if last else 0.0, "loss": last.loss if last else None}


def finish(run: Run, folder: Folder, source: DataSource) -> Artifact:
    """Write the artifact and its picture."""
    provenance = {
        **spent_on(folder, run.plan.steps),
        **kept_step(run.objective, run.synthetic),
        **surroundings(run.plan, run.data, source),
        **({} if run.experts is None else {"experts": dict(run.experts)}),
    }
    artifact = make_artifact(run.plan, run.data, run.result, run.network, seed=run.seed, provenance=provenance)
    write(artifact, folder)
    return artifact


def make_artifact(
    plan: Plan,
    data: ImageData,
    images: Images,
    network: nn.Module,
    *,
    seed: int,
    provenance: Mapping[str, Any],
    indices: Tensor | None = None,
) -> Artifact:
    """A condensed set with all that gives it meaning, on the CPU."""
    return Artifact(
        images=images.to("cpu"),
        classes=data.classes,
        preprocessing=data.preprocessing.to("cpu"),
        recipe=plan.evaluation.recipe(),
        network=nets.describe(network),
        dataset=data.name,
        method=plan.title,
        options={**plan.options, **asdict(plan.start)},
        seed=seed,
        split={"validation": provenance["data"]["validation"], "seed": provenance["data"]["seed"]},
        indices=indices,
        provenance=provenance,
    )


def write(artifact: Artifact, folder: Folder) -> None:
    """Write an artifact's picture and file; the file last, because it says that the run is finished."""
    from condensery import pictures

    folder.path.mkdir(parents=True, exist_ok=True)
    pictures.save_grid(artifact, folder.picture)
    artifact.save(folder.artifact)


def validation_accuracy(run: Run, budget: float = 1.0) -> float:
    """Train one network on the set as it is and score it on the validation split; the run is not touched."""
    known = kept_accuracy(run.objective, run.synthetic, run.plan.start, budget)
    return _accuracy(run.plan, run.data, run.seed, run.network, run.result, budget) if known is None else known


def _accuracy(plan: Plan, data: ImageData, seed: int, network: nn.Module, images: Images, budget: float) -> float:
    """On the validation split, of one network that is trained on images."""
    with torch.no_grad():
        x, y = images()
    recipe = plan.evaluation.recipe().scaled(budget)
    step = images.step_size
    recipe = recipe if step is None else recipe.with_lr(float(step.detach()))
    (generator,) = generators(seed, 1)
    return accuracy(fit(Net(network), Batch(x.clone(), y.clone()), recipe, generator), data.validation)


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain data as one level with dotted names.

    Example:
        >>> flatten({"a": {"b": 1}, "c": 2})
        {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


@dataclass
class Logged(Snapshots):
    """Snapshots that keep the log in step: it is on disk before them, and goes back to them."""

    journal: Journal = field(kw_only=True)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """See `Snapshots`; the log goes back to that step."""
        found = super().latest()
        self.journal.begin(found[0] if found else 0)
        return found

    def save(self, number: int, state: Mapping[str, Any]) -> None:
        """See `Snapshots`; the log is on disk first."""
        self.journal.flush(disk=True)
        super().save(number, state)


def surroundings(plan: Plan, data: ImageData, source: DataSource) -> dict[str, Any]:
    """Where and from what a set was made, plain data for `Artifact.provenance`."""
    return made_from(plan, data.train.device, source.to_json())


def made_from(plan: Any, device: torch.device, source: Mapping[str, Any]) -> dict[str, Any]:
    """Where and from what a set of any kind was made, plain data.

    Args:
        plan: With its `origin` and `budget`.
        device: Where it was made.
        source: What data.
    """
    return {
        "data": dict(source),
        "recipe": list(plan.origin),
        "budget": plan.budget,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
    }


def first_images(
    plan: Plan,
    net: Net,
    real: Labelled,
    generator: torch.Generator,
    ways: experts.Store | experts.Convexified | None = None,
) -> Images:
    """The images that a run starts from.

    Args:
        plan: Says what they are.
        net: The architecture.
        real: Real images that they are taken from.
        generator: For what is random.
        ways: Experts, if the plan matches some.
    """
    start = plan.start
    per_class = plan.per_class if isinstance(plan.per_class, int) else list(plan.per_class)
    more: dict[str, Any] = {
        "learn_labels": start.learn_labels,
        "step_size": start.step_size,
        "step_floor": start.step_floor,
        "mirrored": start.mirrored,
        "bound": partial(_bounded, real.prepare) if start.bound else None,
    }
    if start.init == "correct":
        if start.formation > 1 or start.label_smoothing:
            raise ValueError("init=correct has whole images and labels of its own; leave formation and smoothing out.")
        assert ways is not None, "a plan with this start matches experts"
        return datm.start(net, ways, real, per_class, generator, **more)
    form: Formation = MultiFormation(start.formation) if start.formation > 1 else Identity()
    if start.init == "real":
        images = Images.from_real(real, per_class, generator, formation=form)
    elif start.init == "noise":
        images = Images.from_noise(real, per_class, generator, formation=form)
    else:
        counts = [form.repeats * k for k in counts_per_class(per_class, real.num_classes)]
        chosen = catalog.CORESETS[start.init].load()(real.whole().x, real.y, counts, generator=generator)
        images = Images.from_index(real, chosen, formation=form)
    labels = _soft_labels(plan, images, real.num_classes)
    return Images(images.values, images.classes, labels=labels, formation=form, **more)


def _soft_labels(plan: Plan, images: Images, classes: int) -> Tensor | None:
    """Label rows ``[n * repeats, classes]`` if the plan asks for labels that are not hard."""
    share = plan.start.label_smoothing
    if plan.start.label_scale is not None:
        return plan.start.label_scale * centred_one_hot(
            images.classes.repeat_interleave(images.formation.repeats), classes
        )
    # TESLA writes its labels itself, into rows that are there and not learned.
    if not share and not plan.start.learn_labels and not plan.options.get("teacher_labels"):
        return None
    rows = F.one_hot(images.classes.repeat_interleave(images.formation.repeats), classes).float()
    return (1 - share) * rows + share / classes


def _bounded(preprocessing: Preprocessing, values: Tensor) -> Tensor:
    """Values whose pixels lie between black and white."""
    original = getattr(preprocessing, "original", preprocessing)
    return original(original.inverse(values).clamp(0, 1))


def options_of(method: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options as objects.

    Args:
        method: Its class.
        plain: The options of a plan.
    """
    kinds = words.fields_of(method)
    return {name: as_object(kinds[name], value) for name, value in plain.items()}


def _check_learned(run: Run) -> bool:
    """After a step: everything that is to be learned got a gradient; ``False`` after a step that moved nothing."""
    missing = [name for name, parameter in run.synthetic.named_parameters() if parameter.grad is None]
    if len(missing) == len(list(run.synthetic.parameters())):
        return False
    if missing:
        raise ValueError(
            f"{run.plan.title} does not learn {missing[0]}; leave that setting out or choose another method."
        )
    return True


def _standardised_zca(x: Tensor) -> Preprocessing:
    return zca_trace(x, Standardise.of(x))


def _said(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "nothing"
