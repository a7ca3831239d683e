"""Record experts: train networks on the real images and keep their parameters after every epoch."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from torch import Tensor

from condensery.data.augment import DsaTrain, Siamese
from condensery.data.labelled import Labelled
from condensery.data.whitening import Identity, Prepared, Preprocessing, Whiten
from condensery.experts.convexified import Convexified
from condensery.experts.files import Layout, Manifest, claim, path_of, read_expert, write_expert
from condensery.experts.optimizers import Optimizer, PlainSgd
from condensery.experts.origin import origin_of
from condensery.experts.store import Store, open_experts
from condensery.experts.waypoints import Waypoints
from condensery.fitting import Augment
from condensery.loop import NotFinite
from condensery.net import Net
from condensery.passes import Passes
from condensery.store import DamagedFile

OnEpoch = Callable[[int, Tensor], None]
"""Told after each epoch: how many are done, and the parameters."""


@dataclass(frozen=True)
class Recording:
    """How experts are trained; the defaults are MTT's (Cazenavette et al., CVPR 2022).

    Args:
        epochs: K: how often the training images are gone through; an expert has K + 1 points.
        batch_size: Images in a step; the order is drawn anew for each epoch, and its last batch may be short.
        optimizer: How the weights move: `PlainSgd`, or `Gsam` for FTD.
        augment: Random change of the images (digits must not be mirrored: ``DsaTrain(Siamese.digits())``), or ``None``.
        seed: With an expert's number it decides all that is random in it.
        precision: Lower precision for the gradients, e.g. ``torch.bfloat16``; the weights stay float32.
        compiled: Whether the gradient is compiled with ``torch.compile``: tens of seconds once in each process, for
            each shape of a batch, and there are two where the last one is short.
    """

    epochs: int = 50
    batch_size: int = 256
    optimizer: Optimizer = field(default_factory=PlainSgd)
    augment: Augment | None = field(default_factory=lambda: DsaTrain(Siamese.natural()))
    seed: int = 0
    precision: torch.dtype | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.seed < 0:
            raise ValueError(
                f"An expert cannot have {self.epochs} epochs, batches of {self.batch_size} and the seed {self.seed}; "
                "give at least 1, 1 and 0."
            )

    def generator(self, index: int) -> torch.Generator:
        """What is random in expert `index`: the same whoever records it, and in whatever order."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(index,))
        return torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))


def record_expert(
    net: Net, data: Labelled, recording: Recording, index: int, *, on_epoch: OnEpoch | None = None
) -> Tensor:
    """Train one expert.

    Args:
        net: The network.
        data: The training images; the network is trained where they are.
        recording: How.
        index: The expert's number.
        on_epoch: Called after each epoch with the number of epochs done and the parameters ``[p]``.

    Returns:
        Parameters ``[K + 1, p]`` on the CPU: as drawn, and after each epoch.

    Raises:
        NotFinite: If they stop being finite numbers.
    """
    return _record_one(_passes(net, recording), _ready(data), recording, index, on_epoch)


def record_together(
    net: Net, data: Labelled, recording: Recording, indices: Sequence[int], *, on_epoch: OnEpoch | None = None
) -> Tensor:
    """Train several experts side by side, one ``torch.func.vmap`` over all: for accelerators, which small networks
    leave idle. On a CPU it is slower than one after the other.

    Everything random comes from each expert's own generator, so it is the expert of `record_expert` but for rounding.

    Args:
        net: The network.
        data: The training images.
        recording: How.
        indices: The experts' numbers; memory grows with how many there are.
        on_epoch: Called after each epoch with the number of epochs done and the parameters ``[experts, p]``.

    Returns:
        Parameters ``[experts, K + 1, p]`` on the CPU.

    Raises:
        NotFinite: If they stop being finite numbers.
    """
    return _record_several(_gradients(net, recording), net, _ready(data), recording, indices, on_epoch)


def record(
    folder: str | Path,
    net: Net,
    data: Labelled,
    recording: Recording,
    *,
    count: int,
    jobs: int = 1,
    layout: Layout | Waypoints = Layout.FULL,
    name: str = "",
    on_progress: Callable[[float, int], None] | None = None,
) -> Store | Convexified:
    """Record experts into a folder, or those of them that it does not hold yet.

    A run that is killed loses the experts in progress and no other; the same call goes on, and gives the same store,
    bit for bit, as one that was never stopped (on the same machine with the same number of threads; each of several
    processes has one).

    Args:
        folder: Where; made if it does not exist.
        net: The network.
        data: The training images.
        recording: How experts are trained.
        count: How many.
        jobs: How many at a time: processes on a CPU, side by side (`record_together`) on an accelerator.
        layout: How they are stored. `Waypoints` (or `Layout.CONVEXIFIED`, its default) convexifies each expert as it
            is done; its full trajectory is never on disk.
        name: The data's name, for messages; where it is empty, it is not compared.
        on_progress: Called at the start, after each expert and, but for those of several processes, after each epoch,
            with the number of experts there (a fraction while one is in progress) and `count`.

    Returns:
        The first `count` experts of the store, with segments on the device of the data.

    Raises:
        ValueError: If the folder holds experts of something else, naming the first field that differs.
        NotFinite: If an expert's parameters stop being finite numbers.
    """
    if count < 1 or jobs < 1:
        raise ValueError(f"Cannot record {count} experts, {jobs} at a time; give at least 1 of both.")
    folder = Path(folder)
    manifest = claim(folder, _manifest(net, data, recording, layout, name))
    task = _Task(folder, manifest, net, data, replace(recording, epochs=manifest.epochs))
    missing = [i for i in range(count) if not intact(folder, i)]
    done = count - len(missing)

    def tell(more: float = 0.0) -> None:
        if on_progress is not None:
            on_progress(done + more if more else done, count)

    tell()
    for more in task.run(missing, jobs, tell):
        done += more
        tell()
    return open_experts(folder, count=count).to(data.device)


@dataclass(frozen=True)
class _Task:
    """What the experts of one call have in common."""

    folder: Path
    manifest: Manifest
    net: Net
    data: Labelled
    recording: Recording

    def run(self, indices: Sequence[int], jobs: int, tell: Callable[[float], None]) -> Iterator[int]:
        """Record and write; gives how many were written, time after time, and tells the fraction in between."""
        if jobs > 1 and _accelerated(self.data):
            yield from self._run_together(indices, jobs, tell)
        elif jobs > 1 and len(indices) > 1:
            yield from self._run_processes(indices, min(jobs, len(indices)))
        else:
            passes, data = _passes(self.net, self.recording), _ready(self.data)
            for index in indices:
                self._write(index, _record_one(passes, data, self.recording, index, self._share_of(1, tell)))
                yield 1

    def _share_of(self, experts: int, tell: Callable[[float], None]) -> OnEpoch:
        """Tell what share of the experts in progress is done; that they are done is told once they are written."""
        last = self.recording.epochs
        return lambda epoch, _: tell(experts * epoch / last) if epoch < last else None

    def _run_together(self, indices: Sequence[int], jobs: int, tell: Callable[[float], None]) -> Iterator[int]:
        gradient, data = _gradients(self.net, self.recording), _ready(self.data)
        for start in range(0, len(indices), jobs):
            group = indices[start : start + jobs]
            told = self._share_of(len(group), tell)
            ways = _record_several(gradient, self.net, data, self.recording, group, told)
            for index, way in zip(group, ways, strict=True):
                self._write(index, way)
            yield len(group)

    def _run_processes(self, indices: Sequence[int], jobs: int) -> Iterator[int]:
        shipped, token = _Shipped.of(_ready(self.data)), uuid.uuid4().hex
        tasks = (
            delayed(_work)(token, self.folder, self.manifest, self.net, shipped, self.recording, i) for i in indices
        )
        # Arrays go to the processes as memory maps, copied where written: read-only ones make torch warn.
        pool = Parallel(jobs, inner_max_num_threads=1, mmap_mode="c", return_as="generator_unordered")
        yield from pool(tasks)

    def _write(self, index: int, way: Tensor) -> None:
        write_expert(self.folder, index, way, self.manifest)


def _manifest(net: Net, data: Labelled, recording: Recording, layout: Layout | Waypoints, name: str) -> Manifest:
    """What the folder will hold."""
    waypoints = layout if isinstance(layout, Waypoints) else Waypoints() if layout is Layout.CONVEXIFIED else None
    if waypoints is not None:
        waypoints.positions(recording.epochs)  # raises now rather than after the first expert
    kind = layout if isinstance(layout, Layout) else Layout.CONVEXIFIED
    sizes = tuple(part.numel() for part in net.layers(torch.empty(net.size)).values())
    return Manifest(origin_of(net, data, recording, name=name), kind, waypoints, recording.epochs, sizes)


def intact(folder: Path, index: int) -> bool:
    """Whether an expert is there and can be trusted; a damaged one is named, and recorded again."""
    if not path_of(folder, index).is_file():
        return False
    try:
        read_expert(folder, index)
    except DamagedFile as error:
        warnings.warn(f"{error} This expert is recorded again.", RuntimeWarning, stacklevel=3)
        return False
    return True


@dataclass(frozen=True)
class _Shipped:
    """A `Labelled` whose tensors are arrays, which processes can share."""

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    prepare: Preprocessing

    @classmethod
    def of(cls, data: Labelled) -> _Shipped:
        # Of prepared images nothing more is needed to train, and a whitening matrix is large.
        prepare = Prepared(Identity()) if isinstance(data.prepare, Prepared) else data.prepare
        return cls(data.x.numpy(), data.y.numpy(), data.classes, prepare)

    def labelled(self) -> Labelled:
        return Labelled(torch.from_numpy(self.x), torch.from_numpy(self.y), self.classes, self.prepare)


_COMPILED: dict[str, Passes] = {}  # in a worker process: compiled once for all the experts of one call


def _work(
    token: str, folder: Path, manifest: Manifest, net: Net, shipped: _Shipped, recording: Recording, index: int
) -> int:
    """What a worker process does: one expert."""
    if token not in _COMPILED:
        _COMPILED.clear()
        _COMPILED[token] = _passes(net, recording)
    write_expert(folder, index, _record_one(_COMPILED[token], shipped.labelled(), recording, index), manifest)
    return 1


def _record_one(
    passes: Passes, data: Labelled, recording: Recording, index: int, on_epoch: OnEpoch | None = None
) -> Tensor:
    generator = recording.generator(index)
    theta = passes.net.init(generator, device=data.device)
    points, state = torch.empty(recording.epochs + 1, passes.net.size), None
    points[0] = theta
    for epoch in range(1, recording.epochs + 1):
        for chosen in torch.randperm(len(data), generator=generator).split(recording.batch_size):
            x, y = data.batch(chosen)
            if recording.augment is not None:
                x = recording.augment(x, generator)
            theta, state = recording.optimizer.step(theta, partial(passes.mean_gradient, x=x, y=y), state)
        points[epoch] = theta
        check_finite(points[epoch], index, epoch)
        if on_epoch is not None:
            on_epoch(epoch, theta)
    return points


def _record_several(
    gradient: Callable[..., Tensor],
    net: Net,
    data: Labelled,
    recording: Recording,
    indices: Sequence[int],
    on_epoch: OnEpoch | None = None,
) -> Tensor:
    generators = [recording.generator(i) for i in indices]
    theta = torch.stack([net.init(g, device=data.device) for g in generators])
    points, state = torch.empty(len(indices), recording.epochs + 1, net.size), None
    points[:, 0] = theta
    for epoch in range(1, recording.epochs + 1):
        orders = torch.stack([torch.randperm(len(data), generator=g) for g in generators])
        for index in orders.split(recording.batch_size, dim=1):
            x, y = data.batch(index.flatten())
            x, y = x.unflatten(0, index.shape), y.view(index.shape)
            if recording.augment is not None:
                x = torch.stack([recording.augment(part, g) for part, g in zip(x, generators, strict=True)])
            theta, state = recording.optimizer.step(theta, partial(gradient, x=x, y=y), state)
        points[:, epoch] = theta
        for i, point in zip(indices, points[:, epoch], strict=True):
            check_finite(point, i, epoch)
        if on_epoch is not None:
            on_epoch(epoch, theta)
    return points


def _gradients(net: Net, recording: Recording) -> Callable[..., Tensor]:
    """Mini-batch gradients ``[e, p]`` of several experts at once: parameters, images and labels with e in front."""
    low = recording.precision

    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if low is None:
            return F.cross_entropy(net(theta, x), y)
        return F.cross_entropy(net(theta.to(low), x.to(low)).float(), y)

    gradients = torch.func.vmap(torch.func.grad(loss))
    if recording.compiled:
        gradients = torch.compile(gradients, dynamic=False)
    return lambda theta, x, y: gradients(theta, x, y)  # by position: vmap does not map what is passed by name


def _accelerated(data: Labelled) -> bool:
    return data.device.type != "cpu"


def _passes(net: Net, recording: Recording) -> Passes:
    return Passes(net, recording.precision, recording.compiled)


def _ready(data: Labelled) -> Labelled:
    """Whitened images are prepared once for all epochs; a mean and a deviation are not worth the memory."""
    if len(data) == 0:
        raise ValueError("There is nothing to train experts on; give at least one image.")
    return data.prepared() if isinstance(data.prepare, Whiten) else data


def check_finite(theta: Tensor, index: int, epoch: int) -> None:
    """Stop where an expert's parameters ``[p]`` are not finite numbers.

    Raises:
        NotFinite: Naming the expert and the epoch.
    """
    if not bool(torch.isfinite(theta).all()):
        raise NotFinite(
            f"Not finite: expert {index} in epoch {epoch}; lower the learning rate. Experts that are done are kept."
        )
