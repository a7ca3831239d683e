"""What experts came from, as plain data, and the first thing in which two origins differ."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from condensery import nets
from condensery.configs import to_config
from condensery.data.graphs import GraphData
from condensery.data.labelled import Labelled
from condensery.data.whitening import Prepared
from condensery.net import Net

if TYPE_CHECKING:
    from condensery.experts.nodes import NodeRecording
    from condensery.experts.record import Recording

_ROWS = 4096  # images digested at once: bounds the copies
_TOLERANCE = 1e-4  # of fitted numbers, whose last bits depend on the machine and its threads


def origin_of(net: Net, data: Labelled, recording: Recording, *, name: str = "") -> dict[str, Any]:
    """All that an expert's way depends on, as JSON values, but the number of epochs: it only says how far it goes.

    Args:
        net: The network.
        data: Its training images, prepared or not: that makes no difference.
        recording: How it is trained.
        name: The data's name; where it is empty, it is not compared.

    Raises:
        ValueError: If the network, the optimizer or the augmentation cannot be written down.
    """
    precision = None if recording.precision is None else str(recording.precision).removeprefix("torch.")
    origin = {
        **_given(net, data, name),
        "optimizer": to_config(recording.optimizer),
        "batch_size": recording.batch_size,
        "augment": to_config(recording.augment),
        "precision": precision,
        "seed": recording.seed,
    }
    return json.loads(json.dumps(origin))  # as a file would give it back: tuples become lists


def origin_of_nodes(
    net: Net, data: GraphData, recording: NodeRecording, labels: Tensor | None = None
) -> dict[str, Any]:
    """The same for an expert on a graph.

    Args:
        net: The network.
        data: The graph.
        recording: How it is trained.
        labels: What a curriculum orders the nodes by; ``None`` for predicted labels.

    Raises:
        ValueError: If the network or the optimizer cannot be written down.
    """
    ordered = recording.curriculum is not None
    origin = {
        **_given(net, data, data.name),
        "optimizer": to_config(recording.optimizer),
        "every": recording.every,
        "curriculum": to_config(recording.curriculum),
        "labels": None if not ordered else "predicted" if labels is None else _digest_of([labels]),
        "seed": recording.seed,
    }
    if ordered and labels is None:
        origin["judge"] = recording.epochs  # how long the network that predicts them is trained
    return json.loads(json.dumps(origin))


def check_origin(what: str, origin: Mapping[str, Any], net: Net, data: Labelled | GraphData, *, name: str = "") -> None:
    """Refuse data, preprocessing or a network other than an origin's; where the origin is silent, nothing is refused.

    Args:
        what: How the message begins.
        origin: What `origin_of` gave when the experts were recorded.
        net: The network.
        data: The training images, or the graph.
        name: The data's name; where it is empty, it is not compared.

    Raises:
        ValueError: Naming the first field that differs, with both values.
    """
    if origin:
        now = json.loads(json.dumps(_given(net, data, name)))
        refuse_difference(what, origin, now, "use that data, preprocessing and network, or record experts for these.")


def refuse_difference(what: str, found: Mapping[str, Any], expected: Mapping[str, Any], fix: str) -> None:
    """Compare the fields of `expected`, in order.

    Raises:
        ValueError: Naming the first that differs, with both values and the fix.
    """
    different = _difference(found, expected)
    if different is not None:
        field, was, now = different
        raise ValueError(f"{what} were recorded with {field} {_short(was)}, not {_short(now)}; {fix}")


def _given(net: Net, data: Labelled | GraphData, name: str) -> dict[str, Any]:
    if isinstance(data, GraphData):
        part, prepare = {"nodes": len(data), "digest": _digest_graph(data)}, data.preprocessing
        fitted = {"features": _sketch(data.training_view().x)}
    else:
        part, prepare, fitted = {"images": len(data), "digest": _digest(data)}, data.prepare, {}
    tensors = {key: _sketch(value) for key, value in prepare.tensors().items()}
    return {
        "data": {"name": name, **part},
        "preprocessing": {**prepare.config(), "tensors": tensors, **fitted},
        "network": nets.describe(net.module),
    }


def _digest_graph(data: GraphData) -> str:
    """Of what training sees but the features, which fitted numbers may have scaled: those are sketched."""
    view = data.training_view()
    weights = [] if view.weights is None else [view.weights]
    return _digest_of([view.edges, *weights, view.train, view.train_y])


def _digest_of(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _digest(data: Labelled) -> str:
    """Of the images as whole levels and the labels: prepared images, brought back to pixels, have the same."""
    digest = hashlib.blake2b(repr((tuple(data.x.shape), data.classes)).encode(), digest_size=16)
    for part in data.x.split(_ROWS):
        if part.is_floating_point():
            pixels = data.prepare.inverse(part) if isinstance(data.prepare, Prepared) else part
            part = (255 * pixels).round()
        digest.update(part.to("cpu", torch.int32).contiguous().numpy().data)
    digest.update(data.y.cpu().numpy().data)
    return digest.hexdigest()


def _sketch(value: Tensor) -> dict[str, Any]:
    """Shape, norm and three projections: enough to tell two fits apart, and the same but for rounding everywhere.

    A digest of fitted tensors would refuse a store on every machine but the one that recorded it.
    """
    flat = value.detach().to("cpu", torch.float64).flatten()
    norm = float(flat.norm())
    place = torch.arange(1, len(flat) + 1, dtype=torch.float64)
    along = [float(flat @ (place * math.sqrt(k)).cos()) / (norm or 1.0) for k in (2, 3, 5)]
    return {"shape": list(value.shape), "norm": norm, "along": along}


def _difference(found: Any, expected: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first field of `expected` that `found` lacks or has otherwise, with both values."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key, value in expected.items():
            where = f"{path}.{key}" if path else str(key)
            if where == "data.name" and not (value and found.get(key)):
                continue  # not everybody knows a name, and the digest decides
            different = _difference(found.get(key), value, where)
            if different is not None:
                return different
        return None
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return next((d for i, (a, b) in pairs if (d := _difference(a, b, f"{path}[{i}]")) is not None), None)
    return None if _same(found, expected, path) else (path, found, expected)


def _same(a: Any, b: Any, path: str) -> bool:
    fitted = path.startswith("preprocessing") and isinstance(a, float) and isinstance(b, float)
    if not fitted:
        return bool(a == b)
    # Projections are of unit vectors, and may be as good as zero.
    return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE if ".along" in path else 0.0)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
