"""Time the authors' public code of DC, DSA and DM (VICO-UoE/DatasetCondensation), run unchanged from a local checkout.

    python benchmarks/peer_vico.py --checkout DatasetCondensation --data cifar-10-batches-bin --method DM --ipc 1

Prints one JSON line. Nothing is fetched, no file of the checkout is changed, and the four files that run must be those
of the commit named below. Their code needs a few things that are supplied or replaced at run time:

- torchvision is stood in for by empty modules, and CIFAR-10 is read from the binary release; an item is made on
  access as torchvision would make it (PIL image, float tensor, normalised), because their set-up reads all 50,000.
- Evaluation during condensing is off, and the clock is read where a fresh network is made.
- Current PyTorch refuses DSA's siamese copy of a batch's first draw onto itself when the batch is one image; siamese
  is turned off for such a call, which changes no number.

An iteration is one outer iteration: a fresh network and all its matching steps. DC and DSA at 10 images per class take
10 matching steps with 50 passes over the synthetic set between them, so there an iteration here is one *turn*: 50
passes and the matching step after them, the first matching step being the warm-up; their loop lengths are kept and the
run is left in the middle. `--outer-loop` shortens their loop instead and measures it whole. Both give the matching
step and the passes separately.

With `--paced` the program prints "ready" before each iteration and waits for a line, so that `speed.py` can take turns
between programs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import io
import json
import platform
import resource
import runpy
import statistics
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

COMMIT = "53f63a672eab9ade02aabe6432706ef56f317d64"
BLOBS = {
    "main.py": "3d957b752a5132847101f5effa01f8053d3affc1",
    "main_DM.py": "6e0439acea824714fc514496d27ded6dffa71df2",
    "networks.py": "cdebf2ea016b337517d419301e6996c096b777ba",
    "utils.py": "2fc134f88fc77c5dc6bb8833f7a88392f549da6a",
}
STRATEGY = "color_crop_cutout_flip_scale_rotate"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
SKIPPED_PASSES = 2  # of an evaluation's training: warm-up


# --- measuring, shared with speed.py ----------------------------------------------------------------------------------


def clock() -> tuple[float, float]:
    """Wall and CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def resident(field: str, process: int | str = "self") -> float | None:
    """A memory field of a process in MB (VmRSS: now, VmHWM: at most), where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return round(int(line.split()[1]) / 1024)
    return None


class Meter:
    """Wall and CPU seconds of each iteration, and the memory of the loop apart from that of the set-up.

    Args:
        iterations: Measured ones, after one of warm-up.
        paced: Whether to wait for a line on standard input before each.
    """

    def __init__(self, iterations: int, *, paced: bool) -> None:
        self.iterations, self.paced, self.out = iterations, paced, sys.stdout
        self.laps: list[dict[str, Any]] = []
        self.memory: dict[str, Any] = {}
        self._mark: tuple[float, float] | None = None
        self._system = 0.0

    @property
    def running(self) -> bool:
        """Whether the loop has begun."""
        return self._mark is not None

    @property
    def done(self) -> bool:
        """Whether every iteration is measured."""
        return len(self.laps) > self.iterations

    def begin(self) -> None:
        """End the set-up: give freed memory back, count the peak from here, and start the first iteration."""
        self.memory["peak_setup_mb"] = resident("VmHWM")
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.memory["start_mb"] = resident("VmRSS")
        self._go()

    def lap(self, **more: Any) -> bool:
        """End an iteration and start the next one; whether that was the last."""
        assert self._mark is not None
        wall, cpu = (now - then for now, then in zip(clock(), self._mark, strict=True))
        system = resource.getrusage(resource.RUSAGE_SELF).ru_stime - self._system  # of the CPU seconds: fresh pages
        self.laps.append({"wall_s": round(wall, 4), "cpu_s": round(cpu, 4), "system_s": round(system, 4), **more})
        if not self.done:
            self._go()
        return self.done

    def result(self, **what: Any) -> dict[str, Any]:
        """Everything measured, the warm-up apart."""
        self.memory["peak_loop_mb"] = resident("VmHWM")
        return {**what, "warmup": self.laps[0], "laps": self.laps[1:], "memory": self.memory, "versions": versions()}

    def _go(self) -> None:
        if self.paced:
            print("ready", file=self.out, flush=True)
            if not sys.stdin.readline():
                raise SystemExit("the pace-maker is gone")
        self._system = resource.getrusage(resource.RUSAGE_SELF).ru_stime
        self._mark = clock()


def versions() -> dict[str, Any]:
    """What ran."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


# --- their code, and what it is given ---------------------------------------------------------------------------------


def verify(checkout: Path) -> None:
    """Refuse files that are not those of the commit, by git's own ids."""
    for name, wanted in BLOBS.items():
        content = (checkout / name).read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != wanted:
            raise SystemExit(f"{checkout / name} is not that of commit {COMMIT}: check that commit out")


class Cifar:
    """CIFAR-10 as torchvision serves it: bytes kept, an item made on access."""

    def __init__(self, files: list[Path]) -> None:
        rows = np.concatenate([np.fromfile(file, dtype=np.uint8).reshape(-1, 3073) for file in files])
        self.labels = rows[:, 0].astype(int).tolist()
        self.pixels = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        picture = np.array(Image.fromarray(self.pixels[i]))
        image = torch.from_numpy(picture).permute(2, 0, 1).contiguous().float().div(255)
        return image.sub_(self.mean).div_(self.std), self.labels[i]


def cifar10(folder: Path, tested: int | None = None) -> tuple[Any, ...]:
    """What their get_dataset returns; with the first `tested` test images only, if given."""
    classes = (folder / "batches.meta.txt").read_text().split()
    train, test = Cifar([folder / f"data_batch_{i}.bin" for i in range(1, 6)]), Cifar([folder / "test_batch.bin"])
    test.labels = test.labels[:tested]
    loader = torch.utils.data.DataLoader(test, batch_size=256, shuffle=False, num_workers=0)
    return 3, (32, 32), 10, classes, MEAN, STD, train, test, loader


def load(checkout: Path) -> Any:
    """Their utils module, with stand-ins for what it imports."""
    import scipy.ndimage

    verify(checkout)
    torchvision = types.ModuleType("torchvision")
    sys.modules["torchvision"] = torchvision
    for name in ("utils", "datasets", "transforms"):
        part = sys.modules[f"torchvision.{name}"] = types.ModuleType(f"torchvision.{name}")
        setattr(torchvision, name, part)
    torchvision.utils.save_image = lambda *_, **__: None  # type: ignore[attr-defined]
    moved = types.ModuleType("scipy.ndimage.interpolation")  # gone from current SciPy
    moved.rotate = scipy.ndimage.rotate  # type: ignore[attr-defined]
    sys.modules["scipy.ndimage.interpolation"] = moved
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(checkout))
    import utils

    assert Path(utils.__file__).resolve().parent == checkout
    utils.AUGMENT_FNS = {k: [_without_siamese_of_one(f) for f in fs] for k, fs in utils.AUGMENT_FNS.items()}
    return utils


def _without_siamese_of_one(function: Any) -> Any:
    def call(x: torch.Tensor, param: Any) -> torch.Tensor:
        if len(x) > 1 or not param.Siamese:
            return function(x, param)
        param.Siamese = False
        try:
            return function(x, param)
        finally:
            param.Siamese = True

    return call


# --- condensing -------------------------------------------------------------------------------------------------------


class Done(Exception):
    """Leave their loop."""


class Watch:
    """Reads the clock where their loop makes a network, and where a training between two matching steps begins.

    Args:
        utils: Their module, in which two functions are wrapped.
        meter: Where the readings go.
        passes: Passes in such a training.
        turns: Whether an iteration is a turn (see above) or a whole outer iteration.
    """

    def __init__(self, utils: Any, meter: Meter, passes: int, *, turns: bool) -> None:
        self.meter, self.passes, self.turns = meter, passes, turns
        self.calls, self.training = 0, [0.0, 0.0]
        self._network, self._epoch = utils.get_network, utils.epoch
        utils.get_network, utils.epoch = self.network, self.epoch

    def network(self, *args: Any, **options: Any) -> Any:
        """Their get_network: called once at the start of each outer iteration."""
        if not self.meter.running:
            self.meter.begin()
        elif self.turns:
            raise SystemExit("their loop has fewer turns than --iterations")
        else:
            self._lap()
        return self._network(*args, **options)

    def epoch(self, *args: Any, **options: Any) -> Any:
        """Their epoch: one pass over the synthetic set."""
        if self.turns and self.calls % self.passes == 0:
            self._lap()
        self.calls += 1
        before = clock()
        try:
            return self._epoch(*args, **options)
        finally:
            self.training = [t + now - then for t, now, then in zip(self.training, clock(), before, strict=True)]

    def _lap(self) -> None:
        wall, cpu = (round(t, 4) for t in self.training)
        self.training = [0.0, 0.0]
        if self.meter.lap(passes_wall_s=wall, passes_cpu_s=cpu):
            raise Done


def condense(options: argparse.Namespace, utils: Any, meter: Meter) -> dict[str, Any]:
    """Run their script until enough is measured."""
    published = utils.get_loops(options.ipc)
    loops = (options.outer_loop or published[0], published[1])
    utils.get_loops = lambda _: loops
    utils.get_dataset = lambda *_: cifar10(options.data)
    utils.get_eval_pool = lambda *_: []
    turns = options.method != "DM" and loops[0] > 1 and not options.outer_loop
    watch = Watch(utils, meter, loops[1], turns=turns)
    script = "main_DM.py" if options.method == "DM" else "main.py"
    augmented = options.method == "DSA" or (options.method == "DM" and options.augment)
    init = "noise" if options.method == "DC" else "real"
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        sys.argv = [script, "--dataset", "CIFAR10", "--model", "ConvNet", "--ipc", str(options.ipc)]
        sys.argv += ["--batch_real", "256", "--init", init, "--num_exp", "1", "--num_eval", "0"]
        sys.argv += ["--data_path", f"{folder}/data", "--save_path", f"{folder}/result"]
        sys.argv += [] if options.method == "DM" else ["--method", options.method]
        sys.argv += ["--dsa_strategy", STRATEGY if augmented else "none"]
        with contextlib.suppress(Done):
            runpy.run_path(str(options.checkout / script), run_name="__main__")
    result = meter.result(script=script, augmented=augmented, init=init, published_loops=published, outer_loop=loops[0])
    if options.method == "DM":
        return result
    steps = 1 if turns else loops[0]
    return {**result, "iteration": "turn" if turns else "outer iteration", **_parts(result["laps"], steps, watch.turns)}


def _parts(laps: list[dict[str, Any]], steps: int, turns: bool) -> dict[str, float]:
    """CPU seconds of one matching step, and of the passes between two, from whole iterations."""
    parts = {"matching_step_cpu_s": statistics.median((lap["cpu_s"] - lap["passes_cpu_s"]) / steps for lap in laps)}
    trainings = 1 if turns else steps - 1
    if trainings:
        parts["passes_cpu_s"] = statistics.median(lap["passes_cpu_s"] / trainings for lap in laps)
    return {k: round(v, 4) for k, v in parts.items()}


# --- evaluating -------------------------------------------------------------------------------------------------------


def evaluate(options: argparse.Namespace, utils: Any, meter: Meter) -> dict[str, Any]:
    """Train networks on real images with their evaluation and test them: images a second of CPU."""
    *_, train, _, loader = cifar10(options.data, options.tested)
    labels = np.array(train.labels)
    chosen = [i for c in range(10) for i in np.flatnonzero(labels == c)[: options.ipc]]
    images, truth = torch.stack([train[i][0] for i in chosen]), torch.tensor(labels[chosen])
    settings = types.SimpleNamespace(device="cpu", lr_net=0.01, epoch_eval_train=options.passes, batch_train=256)
    settings.dsa, settings.dsa_strategy, settings.dsa_param = options.augment, STRATEGY, utils.ParamDiffAug()
    settings.dc_aug_param = utils.get_daparam("CIFAR10", "ConvNet", "ConvNet", options.ipc)
    calls: list[tuple[str, float]] = []
    plain = utils.epoch

    def epoch(mode: str, *args: Any, **more: Any) -> Any:
        before = clock()[1]
        result = plain(mode, *args, **more)
        calls.append((mode, clock()[1] - before))
        return result

    utils.epoch = epoch
    meter.begin()
    while not meter.done:
        calls.clear()
        network = utils.get_network("ConvNet", 3, 10, (32, 32))
        with contextlib.redirect_stdout(io.StringIO()):
            utils.evaluate_synset(0, network, images, truth, loader, settings)
        training = [seconds for mode, seconds in calls if mode == "train"][SKIPPED_PASSES:]
        testing = sum(seconds for mode, seconds in calls if mode == "test")
        rate = len(chosen) * len(training) / sum(training)
        meter.lap(train_images_per_cpu_s=round(rate, 1), test_images_per_cpu_s=round(options.tested / testing, 1))
    return meter.result(augmented=options.augment, passes=options.passes, tested=options.tested)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help=f"their repository at commit {COMMIT[:8]}")
    parser.add_argument("--data", type=Path, required=True, help="the folder cifar-10-batches-bin")
    parser.add_argument("--method", choices=["DC", "DSA", "DM", "eval"], required=True)
    parser.add_argument("--ipc", type=int, default=1, help="images per class")
    parser.add_argument("--iterations", type=int, default=2, help="measured ones, after one of warm-up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--outer-loop", type=int, help="DC and DSA: this many matching steps for each network")
    parser.add_argument("--plain", dest="augment", action="store_false", help="DM and eval: without DSA's augmentation")
    parser.add_argument("--passes", type=int, default=10, help="eval: over the training images")
    parser.add_argument("--tested", type=int, default=1024, help="eval: test images")
    parser.add_argument("--paced", action="store_true", help="wait for a line before each iteration")
    options = parser.parse_args()
    options.checkout, options.data = options.checkout.resolve(), options.data.resolve()
    return options


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    utils = load(options.checkout)
    meter = Meter(options.iterations, paced=options.paced)
    result = (evaluate if options.method == "eval" else condense)(options, utils, meter)
    what = {"code": "VICO-UoE/DatasetCondensation", "commit": COMMIT, "method": options.method, "ipc": options.ipc}
    print(json.dumps({**what, **result}))


if __name__ == "__main__":
    main()
