"""The experts of a plan: how they are recorded, where they are, and what to type for them."""

from __future__ import annotations

import hashlib
import json
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from condensery import experts, methods, recipes
from condensery.catalog import DataSource
from condensery.configs import to_config
from condensery.data import ImageData
from condensery.data.augment import DsaTrain, Siamese
from condensery.net import Net
from condensery.recipes import ExpertSettings, Plan
from condensery.recipes import values as words

_MANIFEST = "manifest.json"
_REACH = ("max_start", "expert_epochs", "continuous")


def recording_of(settings: ExpertSettings, *, seed: int = 0) -> experts.Recording:
    """How experts are trained, from plain settings.

    Raises:
        ValueError: If a value makes no sense.
    """
    classes = {"sgd": experts.PlainSgd, "sam": experts.Sam, "gsam": experts.Gsam, "asam": experts.Asam}
    named = {name: getattr(settings, name) for name in recipes.EXPERT_OPTIMIZERS[settings.optimizer]}
    given = {name: value for name, value in named.items() if value is not None}
    augment = None if settings.augment is None else DsaTrain(as_object("Siamese", settings.augment))
    return experts.Recording(
        epochs=settings.epochs or 0,
        batch_size=settings.batch_size,
        optimizer=classes[settings.optimizer](lr=settings.lr, **given),
        augment=augment,
        seed=seed,
        precision=None if settings.precision is None else as_object("torch.dtype", settings.precision),
        compiled=settings.compiled,
    )


def layout_of(settings: ExpertSettings) -> experts.Layout | experts.Waypoints:
    """How experts are stored, from plain settings."""
    if settings.layout == experts.Layout.CONVEXIFIED:
        return experts.Waypoints(settings.interior, experts.Beta(settings.beta), settings.smoothing)
    return experts.Layout(settings.layout)


def experts_folder(plan: Plan, source: DataSource, *, seed: int = 0) -> Path:
    """Where the experts of a plan go that were given no folder: all plans that can share experts share it.

    Args:
        plan: Of a method that matches experts.
        source: The data.
        seed: Of the experts.
    """
    root = _experts_root(plan, source, seed)
    return root.with_name(f"{root.name}-e{_settings_of(plan).epochs}")


def experts_for(plan: Plan, source: DataSource, folder: Path | None = None) -> Path | None:
    """The folder of the experts that a plan matches, once it has been recorded; ``None`` where it matches none.

    Args:
        plan: What is to be done.
        source: The data.
        folder: Given by the user; default: `experts_folder`, or that of experts that only go further.

    Raises:
        ValueError: If there are none, naming the command that records them.
    """
    if plan.experts is None:
        if folder is not None:
            raise ValueError(f"{plan.title} matches no experts; leave --experts out.")
        return None
    chosen = folder or _recorded(plan, source)
    command = recording_command(plan, source, folder)
    if not (chosen / _MANIFEST).is_file():
        raise ValueError(f"{plan.title} matches experts, and there are none in {chosen}; record them with: {command}")
    found = len(list(chosen.glob("expert-*.safetensors")))
    if folder is None and found < plan.experts.count:
        raise ValueError(f"{chosen} holds {found} of {plan.experts.count} experts; record the others with: {command}")
    return chosen


def open_for(plan: Plan, net: Net, data: ImageData, folder: Path | None) -> experts.Store | experts.Convexified | None:
    """The experts of a plan, checked against its network and data, on their device."""
    if plan.experts is None:
        return None
    if folder is None:
        raise ValueError(f"{plan.title} matches experts; give the folder where they are.")
    found = experts.open_experts(folder)
    ways = experts.open_experts(folder, count=min(len(found), plan.experts.count))
    ways.check(net, data.train, name=data.name)
    needed = recipes.epochs_needed(plan.options)
    if ways.epochs < needed:
        raise ValueError(
            f"The experts in {folder} have {ways.epochs} epochs, and {plan.title} reaches epoch {needed} from its "
            f"latest start; record some with experts.epochs={needed}, or choose a smaller max_start."
        )
    if plan.options.get("continuous") is not None and isinstance(ways, experts.Store):
        raise ValueError(
            f"{plan.title} matches convexified trajectories, and {folder} holds every point; make some with: "
            f"{shlex.join(['condensery', 'convexify', str(folder), '--out', f'{folder}-convexified'])}"
        )
    _warn_of_others(plan.experts, ways)
    return ways.to(data.train.device)


def recording_command(plan: Plan, source: DataSource, folder: Path | None = None) -> str:
    """The command that records the experts of a plan, into a folder or the default one."""
    return shlex.join(["condensery", "experts", *_typed(plan, source), *_option("--out", folder)])


def condensing_command(plan: Plan, source: DataSource, folder: Path | None = None) -> str:
    """The command that condenses by a plan with the experts of a folder or the default one."""
    usual = recipes.load(plan.method, source.name, plan.per_class).options
    own = {k: v for k, v in plan.options.items() if v != usual[k] and k not in _REACH}
    return shlex.join(["condensery", "condense", *_typed(plan, source), *_set(own), *_option("--experts", folder)])


def describe_experts(ways: experts.Store | experts.Convexified) -> dict[str, Any]:
    """What experts are, plain data: what made them, how many, how far they go, how they are stored."""
    manifest = ways.manifest
    return {
        "origin": dict(manifest.origin),
        "count": len(ways),
        "epochs": ways.epochs,
        "layout": manifest.layout.value,
        "waypoints": to_config(manifest.waypoints),
    }


def as_object(kind: str, value: Any) -> Any:
    """A word as the object that it stands for, by the kind of its setting; other values as they are."""
    if not isinstance(value, str):
        return value
    if "Siamese" in words.alternatives(kind):
        return getattr(Siamese, words.SIAMESE[value])()
    if "torch.dtype" in words.alternatives(kind):
        return getattr(torch, words.PRECISIONS[value])
    for part in words.alternatives(kind):
        if part in words.OBJECTS:
            return attrgetter(words.OBJECTS[part][value])(methods)()
    return words.object_of(value, kind)


def _typed(plan: Plan, source: DataSource) -> list[str]:
    """What is typed after a command to have a plan's experts: the data, the method, and what is not its recipe's."""
    per_class = str(plan.per_class) if isinstance(plan.per_class, int) else ",".join(map(str, plan.per_class))
    usual = recipes.load(plan.method, source.name, plan.per_class)
    other_net = plan.network["net"] != usual.network["net"]
    network = {} if other_net else usual.network
    own: dict[str, words.Value] = {f"net.{k}": v for k, v in plan.network.items() if k != "net" and v != network.get(k)}
    own |= {} if plan.start.whiten == usual.start.whiten else {"whiten": plan.start.whiten}
    own |= {k: plan.options[k] for k in _REACH if plan.options.get(k) != usual.options.get(k)}
    before, now = asdict(_settings_of(usual)), asdict(_settings_of(plan))
    if all(p.options and s["epochs"] == recipes.epochs_needed(p.options) for p, s in ((usual, before), (plan, now))):
        before["epochs"] = now["epochs"]  # they follow from the options
    own |= {f"experts.{k}": v for k, v in now.items() if v != before[k]}
    validation = None if source.validation == DataSource("").validation else source.validation
    return [
        *(source.spec, "--method", plan.method, "--ipc", per_class),
        *_option("--data-root", source.root),
        *_option("--size", source.size),
        *_option("--validation", validation),
        *_option("--net", plan.network["net"] if other_net else None),
        *_set(own),
    ]


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _set(settings: Mapping[str, words.Value]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={words.said(value)}")]


def _settings_of(plan: Plan) -> ExpertSettings:
    assert plan.experts is not None, "the caller has seen that the method matches experts"
    return plan.experts


def _experts_root(plan: Plan, source: DataSource, seed: int) -> Path:
    """The folder of a plan's experts, but for how far they go: what they are in a few words, and a short digest."""
    settings = _settings_of(plan)
    whole = asdict(settings)
    # Not what says how many and how far, nor how the arithmetic is done.
    matter = {k: v for k, v in whole.items() if k not in ("count", "epochs", "precision", "compiled")}
    place = {k: v for k, v in source.to_json().items() if k != "root"}
    plain = {"data": place, "network": dict(plan.network), "whiten": plan.start.whiten, "experts": matter, "seed": seed}
    digest = hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=3).hexdigest()
    parts = [source.short, f"{plan.network['net']}{plan.network.get('width', '')}", settings.optimizer]
    parts += [part for part in (plan.start.whiten, settings.layout) if part not in ("none", "full")]
    return Path("runs") / "experts" / "-".join([*parts, digest])


def _recorded(plan: Plan, source: DataSource) -> Path:
    """The default folder of a plan's experts, or if there is none, that of the same experts with more epochs."""
    exact, settings = experts_folder(plan, source), _settings_of(plan)
    # Waypoints and the labels of the last epoch depend on how far the experts go.
    if (exact / _MANIFEST).is_file() or settings.layout == "convexified" or plan.start.init == "correct":
        return exact
    root = _experts_root(plan, source, 0)
    longer = {
        int(epochs): path
        for path in root.parent.glob(f"{root.name}-e*")
        if (epochs := path.name.rpartition("-e")[2]).isdecimal() and (path / _MANIFEST).is_file()
    }
    return longer.get(min((e for e in longer if e > (settings.epochs or 0)), default=0), exact)


def _warn_of_others(settings: ExpertSettings, ways: experts.Store | experts.Convexified) -> None:
    """Say it where experts were trained in another way than the plan's: they can be what is wanted."""
    asked = json.loads(json.dumps(to_config(recording_of(settings).optimizer)))
    found = ways.origin.get("optimizer")
    if found and found != asked:
        told = [", ".join(f"{k} {v}" for k, v in config.items() if k != "type") for config in (found, asked)]
        warnings.warn(
            f"The experts in {ways.folder} were trained by {found.get('type')} ({told[0]}), the plan's by "
            f"{asked['type']} ({told[1]}).",
            RuntimeWarning,
            stacklevel=2,
        )
