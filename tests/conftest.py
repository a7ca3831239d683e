"""What every test gets: one thread, the same random state, and the data sets if they are here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # results depend on it, and the tests run side by side


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    """Start every test from the same global random state, so that none depends on which ran before."""
    before = torch.random.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.random.set_rng_state(before)


@pytest.fixture
def untouched() -> Iterator[None]:
    """Fail the test if what it did drew from the global generator."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "the global random generator was used"


@pytest.fixture(scope="session")
def condensery_data() -> Path:
    """The folder of downloaded data sets that CONDENSERY_DATA names; without it the test is skipped."""
    folder = os.environ.get("CONDENSERY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set CONDENSERY_DATA to a folder with the public data sets to run this test")
    return Path(folder)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in an empty folder, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
