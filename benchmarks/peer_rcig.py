"""Time the authors' public JAX code of RCIG and of FRePo, unchanged, from local checkouts.

    python benchmarks/peer_rcig.py --code RCIG --checkout RCIG --ipc 1 --width 128
    python benchmarks/peer_rcig.py --code FRePo --checkout FRePo --ipc 1 --width 128

Prints one JSON line. Wants a Python with jax, flax, optax, absl-py and ml_collections of their time (jax 0.4.13, flax
0.6.11 and optax 0.1.5 were used); neither torch nor TensorFlow is needed. Nothing is fetched, no file of a checkout is
changed, and the files that run must be those of the commits named below (yolky/RCIG and yongchaoz/FRePo). Supplied at
run time:

- What is imported and not used in the loop (PyTorch, TensorFlow, pandas, clu, tqdm, their augmentations) is stood in
  for by empty modules.
- RCIG asks JAX for a GPU by name; it is given the CPU.
- The data are random images of CIFAR-10's shape, the learning rates of RCIG's two inner solvers are fixed (theirs are
  searched for before the loop), and only the loop runs: no logging, no evaluation. FRePo writes a checkpoint after its
  first step, which is warm-up.
- In RCIG a network of the pool trains for 1 to 15 steps, drawn; `--pool-steps` says how many are made whatever is
  drawn, so that every iteration is the same work (8, their mean, by default; 0 leaves it to them).

The settings are theirs: configs_final/depth_3.txt for RCIG, script/distill.py for FRePo. An iteration is one outer
iteration. RCIG: inner steps, the direct gradient on 256 real images, steps of the inverse Hessian, the implicit
gradient, and the pool's training. FRePo: the features of 1,024 real images, the gradient, and one step of the pool.

The clock is read where their loop asks for a batch, when everything under way is finished. JAX's own monitor tells how
many wall seconds of an iteration were compiling (`compile_s`). The first two iterations are the warm-up, for RCIG's
code is compiled in both; RCIG's have one inner step and one inverse, by a loop bound that is not compiled in. Where an
iteration of theirs takes hours, `--solver-steps` shortens the measured ones by the same bound, and with `--warm-up 0`
the first one counts, compiling and all.

One thread: XLA's convolutions are kept to one, and its pools of threads are made for a machine of one core. With
`--paced` the program prints "ready" before each iteration and waits for a line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from peer_vico import Meter

REPOSITORIES = {"RCIG": "yolky/RCIG", "FRePo": "yongchaoz/FRePo"}
COMMITS = {"RCIG": "a9fb1fa464972d50be844c5923eb6e9b79c8f960", "FRePo": "43e028a5839a5de367701b9e9544a08ffccb3166"}
BLOBS = {
    "RCIG": {
        "algorithms.py": "68080eb633bd56a7788c90e6ed0ba20a526205e2",
        "models.py": "56482dff49f3b4bb23259d7b64bfaa8dbd6bf51a",
        "utils.py": "53f678cad63a8ffddf22389dfa6ae3d66291c648",
        "configs_final/depth_3.txt": "83ae0c9184403aa184ce87845620596799a5b0e3",
    },
    "FRePo": {
        "lib/datadistillation/frepo.py": "cacdf3ebb87c480b158afd2250e0b3ae21925c01",
        "lib/models/networks.py": "ae9ea49f7694593efa644a73b74c08cd087a3718",
        "lib/training/metrics.py": "48a69ff814c378a1ccdeca16f843c18b93103b4f",
        "lib/training/utils.py": "5029ea067159145cfba7ee692ed5ef9ea1b1862c",
    },
}
BATCH_REAL = {"RCIG": 256, "FRePo": 1024}
STAND_INS = {"RCIG": ("augmax",), "FRePo": ("tensorflow", "pandas", "tqdm", "clu")}
CLASSES, SIZE, DEPTH = 10, 32, 3
POOL_STEPS = 8
WARM_UP = 2
COMPILING = tuple(f"/jax/core/compile/{name}_duration" for name in ("jaxpr_to_mlir_module", "backend_compile"))
INNER_RATE, INVERSE_RATE = 5e-4, 5e-4
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

# --- what their code is given -----------------------------------------------------------------------------------------


def verify(checkout: Path, code: str) -> None:
    """Refuse files that are not those of the commit, by git's own ids."""
    for name, wanted in BLOBS[code].items():
        content = (checkout / name).read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != wanted:
            raise SystemExit(f"{checkout / name} is not that of commit {COMMITS[code]}: check that commit out")


def load(checkout: Path, code: str, *names: str) -> list[Any]:
    """Modules of theirs, with stand-ins for what they import."""
    import flax.training.checkpoints  # before the stand-ins: it asks whether TensorFlow is there
    import jax

    assert flax.training.checkpoints
    verify(checkout, code)
    named = jax.devices
    jax.devices = lambda backend=None: named("cpu" if backend == "gpu" else backend)
    for name in STAND_INS[code]:
        sys.modules[name] = types.ModuleType(name)
    vars(sys.modules.get("augmax", types)).setdefault("get_aug_by_name", None)
    vars(sys.modules.get("clu", types)).setdefault("metric_writers", None)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(checkout))
    found = [importlib.import_module(name) for name in names]
    assert all(Path(str(module.__file__)).resolve().is_relative_to(checkout) for module in found)
    return found


def rows(classes: np.ndarray) -> np.ndarray:
    """Centred one-hot rows."""
    return (np.eye(CLASSES)[classes] - 1 / CLASSES).astype(np.float32)


def prototypes(ipc: int) -> tuple[Any, Any]:
    """A synthetic set to begin with, as theirs are: ``[n, h, w, c]``, ``[n, C]``."""
    import jax

    shape = (CLASSES * ipc, SIZE, SIZE, 3)
    images = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return jax.numpy.asarray(images), jax.numpy.asarray(rows(np.arange(CLASSES).repeat(ipc)))


# --- where the clock is read ------------------------------------------------------------------------------------------


class Done(Exception):
    """Leave their loop."""


class Loader:
    """Stands in for their loader, and reads the clock where a batch is asked for.

    Args:
        meter: Where the readings go.
        batch: Real images of an iteration.
        warm_up: Iterations that do not count.
    """

    more: dict[str, Any]  # what else is told of an iteration

    def __init__(self, meter: Meter, batch: int, warm_up: int) -> None:
        import jax.monitoring

        self.meter, self.more, self.warm_up, self._compiling = meter, {}, warm_up, 0.0
        draw = np.random.default_rng(0)
        self.images = draw.standard_normal((4, batch, SIZE, SIZE, 3), dtype=np.float32)
        self.labels = rows(draw.integers(CLASSES, size=(4, batch)))
        jax.monitoring.register_event_duration_secs_listener(self._compiled)

    @property
    def warming_up(self) -> bool:
        """Whether the iteration under way does not count."""
        return len(self.meter.laps) < self.warm_up

    def as_numpy_iterator(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches without end."""
        self._finish()
        self.meter.begin()
        k = 0
        while True:
            yield self.images[k % 4], self.labels[k % 4]
            k += 1
            self._finish()
            seconds, self._compiling = self._compiling, 0.0
            if self.meter.lap(compile_s=round(seconds, 4), **self.more):
                raise Done

    def _finish(self) -> None:
        """Wait for all that is under way."""
        import jax

        for array in jax.lib.xla_bridge.get_backend().live_buffers():
            array.block_until_ready()

    def _compiled(self, event: str, seconds: float, **_: Any) -> None:
        if event in COMPILING:
            self._compiling += seconds


# --- running it -------------------------------------------------------------------------------------------------------


def rcig(options: argparse.Namespace, loader: Loader) -> dict[str, Any]:
    """Run their run_rcig until enough is measured."""
    import jax
    import ml_collections

    algorithms, models = load(options.checkout, "RCIG", "algorithms", "models")
    fix_steps(algorithms, options, loader)
    config = json.loads((options.checkout / "configs_final" / "depth_3.txt").read_text())
    config["direct_batch_sizes"] = tuple(config["direct_batch_sizes"])
    config |= {"l2": config["l2_rate"] * CLASSES * options.ipc, "use_x64": False, "naive_loss": False}
    config |= {"output_dir": None, "max_steps": sys.maxsize, "model_depth": DEPTH}  # as distill_dataset.py adds
    beta = config["softplus_temp"]
    network = models.Conv(use_softplus=True, beta=beta, num_classes=CLASSES, width=options.width, depth=DEPTH)
    given = (*prototypes(options.ipc), network.init, network.apply, loader, ml_collections.ConfigDict(config))
    with contextlib.suppress(Done):
        algorithms.run_rcig(*given, jax.random.PRNGKey(0), INNER_RATE, INVERSE_RATE)
    names = ("n_inner_steps", "n_hinv_steps", "l2_rate", "use_flip", "pool_model_count")
    shorter = dict.fromkeys(names[:2], options.solver_steps) if options.solver_steps else {}
    return {name: config[name] for name in names} | shorter


def fix_steps(algorithms: Any, options: argparse.Namespace, loader: Loader) -> None:
    """Let the networks of the pool train for as many steps as asked, if that is not 0, and make the warm-up short; the
    other iterations too, if that is asked for.
    """
    import jax

    train, meta = algorithms.do_training_steps, algorithms.do_meta_train_step
    count = options.pool_steps

    def steps(theirs: Any) -> Any:
        return 1 if loader.warming_up else options.solver_steps or theirs

    def training(*args: Any, **given: Any) -> Any:
        if not given["train"]:  # the inner problem's steps, a number; the pool's are drawn, an array
            given["n_steps"] = steps(given["n_steps"])
        else:
            given["n_steps"] = jax.numpy.int32(count) if count else given["n_steps"]
            loader.more["pool_steps"] = int(given["n_steps"])
        return train(*args, **given)

    def meta_training(*args: Any, **given: Any) -> Any:
        given["n_hinv_steps"] = steps(given["n_hinv_steps"])
        return meta(*args, **given)

    algorithms.do_training_steps, algorithms.do_meta_train_step = training, meta_training


def frepo(options: argparse.Namespace, loader: Loader) -> dict[str, Any]:
    """Run their proto_train_and_evaluate until enough is measured."""
    import functools

    import ml_collections

    code, models, training = load(
        options.checkout, "FRePo", "lib.datadistillation.frepo", "lib.models.utils", "lib.training.utils"
    )
    network = models.create_model("conv", CLASSES, width=options.width, depth=DEPTH, output="feat_fc")
    online = {"optimizer": "adam", "learning_rate": 3e-4, "img_size": SIZE, "img_channels": 3}
    kernel = {"optimizer": "lamb", "learning_rate": 3e-4, "eval_batch_size": 1000}
    create = functools.partial(
        training.create_train_state,
        config=ml_collections.ConfigDict(online),
        model=network,
        learning_rate_fn=lambda _: online["learning_rate"],
    )
    holder = code.ProtoHolder(*prototypes(options.ipc), CLASSES * options.ipc, learn_label=True)
    never = {f"steps_per_{name}": sys.maxsize for name in ("epoch", "log", "eval", "checkpoint", "save_image")}
    more = {"num_nn_state": 10, "max_online_updates": 100, "use_flip": True, "num_eval": 0, "resume": False, **never}
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Done):
        given = (ml_collections.ConfigDict(kernel), holder, create, create, (loader, None), folder)
        code.proto_train_and_evaluate(*given, num_train_steps=10**6, save_ckpt=sys.maxsize, writer=Writer(), **more)
    return {"use_flip": True, "pool_model_count": 10}


class Writer:
    """Takes what they log, which is what their first step came to."""

    def write_scalars(self, *_: Any) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


def result(meter: Meter, warm_up: int, **what: Any) -> dict[str, Any]:
    """Everything measured, the warm-up apart."""
    from peer_vico import resident

    meter.memory["peak_loop_mb"] = resident("VmHWM")
    compiled = {"compile_s": round(sum(lap["compile_s"] for lap in meter.laps), 2)}
    laps = {"warmup": meter.laps[:warm_up], "laps": meter.laps[warm_up:]}
    return {**what, **compiled, **laps, "memory": meter.memory, "versions": versions()}


def versions() -> dict[str, Any]:
    """What ran."""
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    return {"python": platform.python_version(), **found, "xla_flags": os.environ["XLA_FLAGS"]}


def use_one_core() -> None:
    """Let JAX make its threads while the process has one core, and then let them go to any."""
    import jax

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    jax.devices()
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", choices=list(COMMITS), required=True)
    parser.add_argument("--checkout", type=Path, required=True, help="the authors' repository, at its commit above")
    parser.add_argument("--ipc", type=int, default=1, help="images per class")
    parser.add_argument("--width", type=int, default=128, help="filters of the first layer, doubled at each of 3")
    parser.add_argument("--pool-steps", type=int, default=POOL_STEPS, help="RCIG; 0: as they draw them")
    parser.add_argument("--solver-steps", type=int, help="RCIG: inner steps and inverse steps; theirs are 20 and 20")
    parser.add_argument("--iterations", type=int, default=2, help="measured ones, after the warm-up")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="iterations before them")
    parser.add_argument("--xla-flags", default=ONE_THREAD, help="for another way to keep to one core")
    parser.add_argument("--paced", action="store_true", help="wait for a line before each iteration")
    options = parser.parse_args()
    options.checkout = options.checkout.resolve()
    return options


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore")
    os.environ |= {"XLA_FLAGS": options.xla_flags, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    use_one_core()
    sys.modules["torch"] = types.ModuleType("torch")  # RCIG's and the meter's modules import it
    from peer_vico import Meter

    meter = Meter(options.iterations + options.warm_up - 1, paced=options.paced)
    loader = Loader(meter, BATCH_REAL[options.code], options.warm_up)
    with contextlib.redirect_stdout(io.StringIO()):
        used = (rcig if options.code == "RCIG" else frepo)(options, loader)
    what = {"code": REPOSITORIES[options.code], "commit": COMMITS[options.code], "method": options.code}
    sizes = {"ipc": options.ipc, "width": options.width, "batch_real": BATCH_REAL[options.code]}
    print(json.dumps(result(meter, options.warm_up, **what, **sizes, **used)))


if __name__ == "__main__":
    main()
