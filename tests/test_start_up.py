"""Start-up is quick: nothing heavy is loaded before it is needed, and no global state is touched."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import condensery as cd

HEAVY = ("torch", "torch_geometric", "numpy", "scipy", "sklearn", "PIL", "datasets", "pooch")


def loaded_after(code: str) -> list[str]:
    """Heavy modules that a fresh interpreter has loaded after running `code`."""
    report = f"\nimport sys\nprint('HEAVY', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import condensery") == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["condense", "--help"], ["methods"]])
def test_the_command_line_helps_without_loading_torch(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["condensery", *{arguments!r}]
from condensery.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert not {"torch", "torch_geometric"} & {*loaded_after(code)}


def test_every_public_name_is_there() -> None:
    assert sorted(cd.__all__) == sorted(set(cd.__all__))
    assert all(getattr(cd, name) is not None for name in cd.__all__)
    assert set(cd.__all__) <= set(dir(cd))
    with pytest.raises(AttributeError, match="no attribute 'Condense'"):
        _ = cd.Condense


def test_a_whole_run_leaves_the_global_generator_alone(untouched: None) -> None:
    with torch.random.fork_rng(devices=[]):  # building a torch module draws, whoever builds it
        net = cd.Net(cd.nets.ConvNet(channels=1, classes=10, size=8, width=4))
    generator = torch.Generator().manual_seed(0)
    data = cd.data.digits()
    images = cd.Images.from_real(data.train, 1, generator)
    cd.condense(images, cd.DM(net, data.train, generator, batch_real=8), steps=2)
    cd.condense(images, cd.DC(net, data.train, generator, batch_real=8, outer=2, inner=1), steps=2)
    cd.accuracy(cd.fit(net, images(), cd.Recipe(epochs=2), generator), data.test)
