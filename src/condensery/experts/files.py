"""The folder of a store: a manifest that says what is in it, and a file for each expert."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from condensery.configs import from_config, to_config
from condensery.data.graphs import GraphData
from condensery.data.labelled import Labelled
from condensery.experts.origin import check_origin, refuse_difference
from condensery.experts.segment import check_size
from condensery.experts.waypoints import Beta, Waypoints
from condensery.net import Net
from condensery.store import DamagedFile, load_tree, save_tree, write_text

KIND, EXPERT_KIND, VERSION = "condensery-experts", "condensery-expert", 1
_NAME = re.compile(r"expert-(\d{5,})\.safetensors")


class Layout(StrEnum):
    """How a trajectory is stored.

    `HALF` is float16 of how far each point is from the first one, which stays float32. Methods use the way between
    two points, and weights move little: rounding the points themselves changes an epoch's way by 4 to 10 %, this by
    0.2 to 0.8 %. bfloat16, with 7 bits of mantissa rather than 10, is eight times as far off, and its range is not
    needed (docs/experts.md).
    """

    FULL = "full"  # every point, float32
    HALF = "half"  # every point, float16 and relative to the first
    CONVEXIFIED = "convexified"  # a few waypoints, float32, and the betas (`Waypoints`)


@dataclass(frozen=True)
class Manifest:
    """What a store holds.

    Args:
        origin: What the experts came from (`origin_of`).
        layout: How they are stored.
        waypoints: The settings of a convexified store, else ``None``.
        epochs: K: how far every expert goes.
        sizes: Number of elements of each parameter tensor.
    """

    origin: Mapping[str, Any]
    layout: Layout
    waypoints: Waypoints | None
    epochs: int
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(self.sizes)

    @property
    def points(self) -> int:
        """Rows of float32 parameters in an expert's file."""
        if self.waypoints is not None:
            return len(self.waypoints.positions(self.epochs))
        return 1 if self.layout is Layout.HALF else self.epochs + 1

    def contents(self) -> dict[str, tuple[str, list[int]]]:
        """Names, types and shapes of a file's tensors."""
        found = {"tree.theta": ("F32", [self.points, self.size])}
        if self.layout is Layout.HALF:
            found["tree.moved"] = ("F16", [self.epochs, self.size])
        if self.waypoints is not None:
            for i, (a, b) in enumerate(pairwise(self.waypoints.positions(self.epochs))):
                found[f"tree.beta.{i}"] = ("F64", [b - a + 1, len(self.sizes)])
        return found

    def tree(self, trajectory: Tensor) -> dict[str, Any]:
        """What a file holds of points ``[K + 1, p]``."""
        if self.waypoints is not None:
            curve = self.waypoints.curve(trajectory, self.sizes)
            return {"theta": curve.points, "beta": curve.betas}
        if self.layout is Layout.FULL:
            return {"theta": trajectory}
        moved = (trajectory[1:] - trajectory[0]).half()
        if not bool(torch.isfinite(moved).all()):
            raise ValueError("An expert moved too far for the half layout; lower its learning rate or use Layout.FULL.")
        return {"theta": trajectory[:1], "moved": moved}

    def text(self) -> str:
        """JSON."""
        values = {
            "kind": KIND,
            "version": VERSION,
            "origin": dict(self.origin),
            "layout": self.layout.value,
            "waypoints": to_config(self.waypoints),
            "parameters": self.size,
            "epochs": self.epochs,
            "tensors": list(self.sizes),
        }
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder.

        Raises:
            FileNotFoundError: If there is no folder, or no manifest in it.
            DamagedFile: If it cannot be read.
        """
        path = folder / "manifest.json"
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder of experts {folder}; check the path, or record experts there.")
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no manifest.json, so it holds no experts; check the path.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["kind"] != KIND or not isinstance(values["origin"], dict):
                raise ValueError(f"its kind is {values['kind']!r:.40}")
            if int(values["version"]) > VERSION:
                raise DamagedFile(
                    f"{path} has layout version {values['version']!r:.20}, this condensery reads up to {VERSION}; "
                    "upgrade condensery."
                )
            classes = {"Waypoints": Waypoints, "Beta": Beta}
            sizes = tuple(int(size) for size in values["tensors"])
            waypoints = from_config(values["waypoints"], classes)
            return cls(values["origin"], Layout(values["layout"]), waypoints, int(values["epochs"]), sizes)
        except DamagedFile:
            raise
        except KeyError as error:
            raise DamagedFile(
                f"{path} is damaged (it lacks {error}); restore it from a copy or record again."
            ) from None
        except (TypeError, ValueError) as error:
            raise DamagedFile(f"{path} is damaged ({error!s:.100}); restore it from a copy or record again.") from None

    def refuse_other(self, folder: Path, other: Manifest) -> None:
        """Refuse to put what `other` says into the folder of this one.

        Raises:
            ValueError: Naming the first field that differs, with both values.
        """
        fix = "record with the same settings or choose another folder."
        what = f"The experts in {folder}"
        refuse_difference(what, self.origin, other.origin, fix)
        mine, its = (
            {"layout": m.layout.value, "waypoints": to_config(m.waypoints), "tensors": list(m.sizes)}
            for m in (self, other)
        )
        refuse_difference(what, mine, its, fix)
        # Longer ways serve shorter ones, but where their waypoints are depends on how long they are.
        if self.epochs < other.epochs or (self.waypoints is not None and self.epochs != other.epochs):
            raise ValueError(
                f"The experts in {folder} go to epoch {self.epochs}, not {other.epochs}; give that number of epochs or "
                "choose another folder."
            )


def claim(folder: Path, manifest: Manifest) -> Manifest:
    """Make a folder the store of a manifest, or go on with the one that is there.

    Returns:
        The manifest that counts: a store whose experts go further than asked stays as it is.

    Raises:
        ValueError: If the folder holds other experts.
    """
    if (folder / "manifest.json").is_file():
        found = Manifest.read(folder)
        found.refuse_other(folder, manifest)
        return found
    folder.mkdir(parents=True, exist_ok=True)
    if numbers(folder):
        raise ValueError(f"{folder} holds experts without a manifest.json; restore it or choose another folder.")
    write_text(folder / "manifest.json", manifest.text())
    return manifest


def path_of(folder: Path, expert: int) -> Path:
    """An expert's file."""
    return folder / f"expert-{expert:05d}.safetensors"


def numbers(folder: Path) -> list[int]:
    """The experts that a folder has files of, ascending."""
    return sorted(int(m[1]) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name)))


def write_expert(folder: Path, expert: int, trajectory: Tensor, manifest: Manifest) -> None:
    """Write one expert in the manifest's layout, whole or not at all.

    Args:
        folder: The store.
        expert: Its number.
        trajectory: Points ``[K + 1, p]``, float32 on the CPU.
        manifest: The store's.
    """
    tree = {"expert": expert, **manifest.tree(trajectory)}
    save_tree(path_of(folder, expert), tree, kind=EXPERT_KIND, version=VERSION)


def read_expert(folder: Path, expert: int) -> dict[str, Any]:
    """Everything in an expert's file, compared with its digest.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFile: If it cannot be trusted.
    """
    return load_tree(path_of(folder, expert), kind=EXPERT_KIND, version=VERSION)


class Stored:
    """Experts in a folder, of any layout: what their stores have in common.

    The files stay open and are mapped into memory, so that drawing a segment reads what it needs and no more.
    """

    def __init__(self, folder: Path, manifest: Manifest, count: int) -> None:
        self.folder, self.manifest = folder, manifest
        self._device = torch.device("cpu")
        self._files = [_open(path_of(folder, i), manifest) for i in range(count)]
        self._rows = [file.get_slice("tree.theta") for file in self._files]

    def __len__(self) -> int:
        """Number of experts."""
        return len(self._rows)

    def __repr__(self) -> str:
        m = self.manifest
        return f"{type(self).__name__}({len(self)} experts of {m.size} parameters, {m.epochs} epochs, {m.layout.value})"

    @property
    def epochs(self) -> int:
        """K: the ways go from 0 to K."""
        return self.manifest.epochs

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.manifest.size

    @property
    def origin(self) -> Mapping[str, Any]:
        """What the experts came from (`origin_of`)."""
        return self.manifest.origin

    @property
    def device(self) -> torch.device:
        """Where drawn segments are."""
        return self._device

    @property
    def nbytes(self) -> int:
        """Bytes on disk of the experts here."""
        return sum(path_of(self.folder, i).stat().st_size for i in range(len(self)))

    def to(self, device: torch.device | str) -> Self:
        """The same files with segments on another device."""
        other = copy.copy(self)
        other._device = torch.device(device)
        return other

    def check(self, net: Net, data: Labelled | GraphData, *, name: str = "") -> None:
        """Refuse a network or data that the experts were not trained with.

        Raises:
            ValueError: Naming the first field that differs, with both values.
        """
        what = f"The experts in {self.folder}"
        check_origin(what, self.origin, net, data, name=name)
        check_size(what, self.size, net)

    def verify(self) -> None:
        """Read every file and compare it with its digest, which opening and drawing do not.

        Raises:
            DamagedFile: Naming the first damaged one.
        """
        for expert in range(len(self)):
            read_expert(self.folder, expert)


def _open(path: Path, manifest: Manifest) -> Any:
    """An expert's file, mapped: only its header is read, and compared with the manifest."""
    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
        if (file.metadata() or {}).get("kind") != EXPERT_KIND:
            raise ValueError("another kind of file")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        found = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise DamagedFile(f"{path} is damaged ({reason}); delete it and record again.") from None
    for name, what in manifest.contents().items():
        if found.get(name) != what:
            raise DamagedFile(
                f"{path} holds {found.get(name)} where its manifest says {what}; delete it and record again."
            )
    return file
