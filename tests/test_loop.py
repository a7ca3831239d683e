"""The outer loop: gradients by hand, exact resume after a real kill, damaged snapshots, numbers that are not finite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from condensery.loop import NotFinite, Snapshots, Step, condense, iterate, with_gradient
from condensery.methods import DC, DM
from support import blobs, generator, tiny_images, tiny_net


def dm(seed: int = 1, **options: Any) -> tuple[Any, DM]:
    real = blobs()
    return tiny_images(real), DM(tiny_net(), real, generator(seed), batch_real=6, **options)


def run(steps: int, snapshots: Snapshots | None = None) -> Tensor:
    images, objective = dm()
    for _ in iterate(images, objective, objective.optimizer(images), steps=steps, snapshots=snapshots):
        pass
    return images.values.detach().clone()


def test_with_gradient_chains_through_what_is_behind_its_inputs() -> None:
    a = torch.tensor([1.0, 2.0], requires_grad=True)
    value = with_gradient(torch.tensor(7.0), [3 * a], [torch.tensor([1.0, 10.0])])
    assert value.item() == 7.0
    assert torch.autograd.grad(value, a)[0].tolist() == [3.0, 30.0]


def test_with_gradient_adds_up_over_inputs() -> None:
    a, b = torch.zeros(2, requires_grad=True), torch.ones(3, requires_grad=True)
    loss = with_gradient(torch.tensor(0.5), [a, b], [torch.full((2,), 4.0), torch.full((3,), 5.0)])
    ga, gb = torch.autograd.grad(loss, (a, b))
    assert ga.tolist() == [4.0, 4.0]
    assert gb.tolist() == [5.0, 5.0, 5.0]


def test_steps_are_counted_and_detached() -> None:
    images, objective = dm()
    steps = list(iterate(images, objective, objective.optimizer(images), steps=3))
    assert [s.number for s in steps] == [1, 2, 3]
    assert all(isinstance(s, Step) and not s.loss.requires_grad for s in steps)


def test_condense_returns_the_set_and_resumes(tmp_path: Path) -> None:
    images, objective = dm()
    assert condense(images, objective, steps=4, folder=tmp_path) is images
    again, objective = dm()
    condense(again, objective, steps=4, folder=tmp_path)
    assert torch.equal(images.values, again.values)


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_resumes_wherever_the_consumer_stops(stop: int, tmp_path: Path) -> None:
    whole = run(8)
    images, objective = dm()
    with pytest.raises(Killed):  # noqa: PT012
        for step in iterate(
            images, objective, objective.optimizer(images), steps=8, snapshots=Snapshots(tmp_path, every=2)
        ):
            if step.number == stop:
                raise Killed
    assert torch.equal(run(8, Snapshots(tmp_path, every=2)), whole)


def test_when_snapshots_are_written_does_not_matter(tmp_path: Path) -> None:
    assert torch.equal(run(7, Snapshots(tmp_path, every=1)), run(7))


SCRIPT = """
    import sys
    from pathlib import Path
    import torch
    from support import blobs, generator, tiny_images, tiny_net
    from condensery.loop import Snapshots, iterate
    from condensery.methods import DC

    torch.set_num_threads(1)
    real = blobs()
    images = tiny_images(real)
    objective = DC(tiny_net(), real, generator(1), batch_real=6, outer=4, inner=3)
    for step in iterate(images, objective, objective.optimizer(images), steps=60,
    snapshots=Snapshots(Path(sys.argv[1]), every=3)):
        print(step.number, flush=True)
"""


def test_a_killed_process_resumes_bit_for_bit(tmp_path: Path) -> None:
    """SIGKILL at an arbitrary moment, three times, then to the end: the same as never stopped."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src")])}
    folder = tmp_path / "snapshots"
    reached = []
    for stop in (10, 25, 41):
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        last = 0
        for line in process.stdout:
            last = int(line)
            if last >= stop:
                time.sleep(0.003 * (stop % 4))  # so that the kill falls at different places of a step
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
        reached.append(last)
    assert reached == sorted(reached)
    torch.set_num_threads(1)
    real = blobs()

    def to_the_end(snapshots: Snapshots | None) -> Tensor:
        images = tiny_images(real)
        objective = DC(tiny_net(), real, generator(1), batch_real=6, outer=4, inner=3)
        first = None
        for step in iterate(images, objective, objective.optimizer(images), steps=60, snapshots=snapshots):
            first = first or step.number
        assert snapshots is None or (first is not None and first > 30)
        return images.values.detach()

    assert torch.equal(to_the_end(Snapshots(folder, every=3)), to_the_end(None))


def test_a_damaged_snapshot_is_told_and_the_one_before_is_used(tmp_path: Path) -> None:
    whole = run(9)
    run(6, Snapshots(tmp_path, every=2))
    (latest, path), (before, _) = Snapshots(tmp_path).files()[:2]
    assert (latest, before) == (6, 4)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    images, objective = dm()
    with pytest.warns(RuntimeWarning, match="damaged.*The snapshot before it is used"):
        numbers = [
            s.number
            for s in iterate(images, objective, objective.optimizer(images), steps=9, snapshots=Snapshots(tmp_path))
        ]
    assert numbers[0] == 5
    assert torch.equal(images.values.detach(), whole)


def test_only_damaged_snapshots_are_an_error(tmp_path: Path) -> None:
    run(4, Snapshots(tmp_path, every=2))
    for _, path in Snapshots(tmp_path).files():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match=r"Every snapshot in .* is damaged"):
        run(6, Snapshots(tmp_path))


def test_another_runs_snapshots_are_refused(tmp_path: Path) -> None:
    run(2, Snapshots(tmp_path, run={"method": "dm", "ipc": 1}))
    with pytest.raises(ValueError, match=r"ipc was 1, now 10"):
        run(4, Snapshots(tmp_path, run={"method": "dm", "ipc": 10}))


def test_two_snapshots_are_kept_and_no_temporary_is_left(tmp_path: Path) -> None:
    run(9, Snapshots(tmp_path, every=2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000008.safetensors", "step-000000009.safetensors"]


class Explodes:
    """A quadratic whose value or gradient becomes infinite at a step."""

    def __init__(self, at: int, *, only_gradient: bool = False) -> None:
        self.at, self.only_gradient, self.calls = at, only_gradient, 0

    def __call__(self, synthetic: Any) -> Tensor:
        self.calls += 1
        x = synthetic().x
        if self.calls < self.at:
            return x.square().sum()
        if self.only_gradient:
            return with_gradient(torch.zeros(()), [x], [torch.full_like(x, torch.inf)])
        return (x.square().sum() + 1) * torch.nan

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(synthetic.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("only_gradient", "quantity"), [(False, "the loss and the gradient of values"), (True, "the gradient of values")]
)
@pytest.mark.parametrize("check_every", [1, 4])
def test_not_finite_names_the_step_and_keeps_the_files(
    only_gradient: bool, quantity: str, check_every: int, tmp_path: Path
) -> None:
    images = tiny_images(blobs())
    objective = Explodes(6, only_gradient=only_gradient)
    run = iterate(
        images,
        objective,
        objective.optimizer(images),
        steps=20,
        snapshots=Snapshots(tmp_path, every=5),
        check_every=check_every,
    )
    with pytest.raises(NotFinite, match=rf"Not finite at step 6: {quantity}; lower the learning rate"):
        list(run)
    number, state = Snapshots(tmp_path).latest() or (0, {})
    assert number == 5
    assert torch.isfinite(state["synthetic"]["values"]).all()


def test_an_overflow_of_the_values_reaches_no_snapshot(tmp_path: Path) -> None:
    images = tiny_images(blobs())
    objective = Explodes(99)
    optimizer = torch.optim.SGD(images.parameters(), lr=1e38)
    with pytest.raises(NotFinite):
        list(iterate(images, objective, optimizer, steps=3, snapshots=Snapshots(tmp_path, every=1)))
    found = Snapshots(tmp_path).latest()
    assert found is None or torch.isfinite(found[1]["synthetic"]["values"]).all()
