"""Where a search keeps its files: one search a folder, one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from condensery.runs import flatten
from condensery.store import write_text


class SearchFolder:
    """The files of a search.

    Args:
        path: The folder; made when it is claimed.

    Attributes:
        settings: What the search is.
        study: The journal of an Optuna study.
        trials: The log of another strategy.
        confirmed: The best on real data, as far as they are done.
        result: All of it.
        picture: The scores in the search against real validation.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.settings, self.study, self.trials = (self.path / n for n in ("search.json", "study.log", "trials.jsonl"))
        self.confirmed, self.result = self.path / "confirmed.json", self.path / "result.json"
        self.picture = self.path / "scatter.png"

    @contextmanager
    def claimed(self, settings: Mapping[str, Any], *, resume: bool = False) -> Iterator[None]:
        """Hold the folder for a search; it is free again when the process ends, however it does.

        Args:
            settings: What the search is, plain data.
            resume: Whether a search with these settings may be there already.

        Raises:
            ValueError: If something else is there, or another process searches in the folder.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is not a folder; choose another --out.")
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY)
        try:
            self._lock(handle)
            self._claim(settings, resume=resume)
            yield
        finally:
            os.close(handle)

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another process searches in {self.path}; wait for it, or choose another --out."
            ) from None

    def _claim(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        begun = any(file.is_file() for file in (self.study, self.trials))
        if not self.settings.is_file() and any(self.path.iterdir()):
            raise ValueError(f"{self.path} is not empty and not the folder of a search; choose another --out.")
        if not (self.settings.is_file() and begun):
            write_text(self.settings, json.dumps(settings, indent=2) + "\n")
        elif resume:
            self._check(settings)
        else:
            raise ValueError(
                f"{self.path} holds a search already; add --resume to go on with it, or choose another --out."
            )

    def _check(self, settings: Mapping[str, Any]) -> None:
        try:
            before = flatten(json.loads(self.settings.read_text(encoding="utf-8")))
        except (ValueError, AttributeError):
            raise ValueError(f"{self.settings} is damaged; choose another --out.") from None
        now = flatten(json.loads(json.dumps(settings)))
        changed = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if changed:
            k = changed[0]
            raise ValueError(
                f"The search in {self.path} has {k} = {before.get(k)!r}, not {now.get(k)!r}; resume it with the same "
                "settings, or choose another --out."
            )
