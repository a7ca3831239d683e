"""``condensery calibrate``: validation images that rank the configurations of a search as the real ones do."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condensery.catalog import DOMAINS, Kind, kind_of
from condensery.cli import options as o
from condensery.cli.condense import announce, default_folder, network_options, per_class
from condensery.cli.console import Interrupted, again, duration, emit, note, progress, say, size
from condensery.cli.evaluate import load, refuse_validation, source_of

if TYPE_CHECKING:
    from condensery.artifact import Artifact
    from condensery.recipes import Plan
    from condensery.runs import Folder, Run, Watch
    from condensery.search import Settings
    from condensery.search.calibration import Relaxed


def calibrate(
    data: o.Data,
    train: Annotated[
        Path,
        typer.Option(
            metavar="ARTIFACT",
            help="The condensed set that the search will train on: its file, or the folder of its run.",
            rich_help_panel="Run",
            show_default=False,
        ),
    ],
    space: Annotated[
        Path,
        typer.Option(help="The search space, a .toml or .json file.", rich_help_panel="Run", show_default=False),
    ],
    ipc: o.Ipc = "1",
    set_: o.Set = None,
    budget: o.Budget = 1.0,
    seed: o.Seed = 0,
    device: o.Where = o.Device.auto,
    out: o.Out = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.", rich_help_panel="Run")
    ] = False,
    snapshot_every: Annotated[
        int,
        typer.Option(min=1, help="Steps between snapshots (at least one a minute is written).", rich_help_panel="Run"),
    ] = 50,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard files too.", rich_help_panel="Run")
    ] = False,
    net: o.Network = None,
    width: o.Width = None,
    norm: o.Normalisation = None,
    data_root: o.DataRoot = None,
    as_json: o.Json = False,
) -> None:
    """Learn validation images for a search (HCDC): their loss ranks configurations as that of the real ones does.

    Networks train on the condensed set of --train. The images start as real validation images and learn to have the
    hypergradients of the real validation split along the space; 'condensery search --val' then scores on them.
    """
    from condensery import runs
    from condensery.search import calibration, read_space

    kind = kind_of(data)
    if kind not in (None, Kind.IMAGES):
        raise ValueError(f"{data} {DOMAINS[kind].holds}; 'calibrate' is for images, and HCDC in Python for graphs.")
    asked, given = read_space(space), training_set(train)
    source = source_of(given, data, data_root)
    whole = _plan(given, source.name, per_class(ipc), set_ or [], network_options(net, width, norm))
    plan = whole.with_budget(budget)
    announce(whole, plan)
    folder = runs.Folder(out or default_folder(plan, source, seed))
    watch = runs.Watch(snapshot_every, tensorboard=tensorboard)
    opened = runs.open_data(source, device=runs.pick_device(device.value))
    run, found = _built(plan, opened, given, asked, seed)
    folder.claim(run.settings(source), resume=resume)
    if folder.finished:
        note(f"{folder.path} is finished already; nothing is left to do.")
        artifact = load(folder.artifact)
    else:
        try:
            _advance(run, folder, watch)
            artifact = calibration.finish(run, folder, source, given, found)
        except KeyboardInterrupt:
            raise Interrupted(f"go on with: {again('--resume')}") from None
    command = ["condensery", "search", data, "--space", str(space), "--train", str(train), "--val", str(folder.path)]
    _report(artifact, folder, shlex.join([*command, *(["--data-root", data_root] if data_root else [])]), as_json)


def training_set(path: Path) -> Artifact:
    """A condensed set that networks may be trained on.

    Raises:
        ValueError: If it is validation data.
    """
    artifact = load(path)
    refuse_validation(artifact, path)
    return artifact


def _plan(train: Artifact, name: str, counts: Any, overrides: list[str], network: dict[str, str]) -> Plan:
    """The recipe for the training set's network, or for another one.

    Raises:
        ValueError: For a setting that means nothing here.
    """
    from condensery import recipes
    from condensery.recipes import values

    for assignment in overrides:
        setting = values.split(assignment)[0]
        if setting == "whiten" or setting.startswith("eval."):
            raise ValueError(f"The set has the preprocessing and the recipe of --train; leave {setting} out.")
        if setting in ("keep_every", "keep_budget"):
            raise ValueError(f"Nothing trains on a set for validation, so none validates best; leave {setting} out.")
    own = {} if "net" in network else {k: values.said(v) for k, v in train.network.items() if k not in _GIVEN}
    plan = recipes.load("hcdc", name, counts, overrides=overrides, network={**own, **network})
    by_hand = [*("net" if key == "net" else f"net.{key}" for key in network), *(values.split(a)[0] for a in overrides)]
    said = [words for words in plan.origin if not words.startswith(recipes.BY_HAND)]
    said += ["the network of the training set"] if own else []
    return replace(plan, origin=(*said, *([f"{recipes.BY_HAND}{', '.join(by_hand)}"] if by_hand else [])))


_GIVEN = ("channels", "classes", "size", "features")


def _built(plan: Plan, data: Any, train: Artifact, space: Settings, seed: int) -> tuple[Run, Relaxed]:
    """The run, and a word on what it is for."""
    from condensery.search import calibration

    run, found = calibration.build(plan, data, train, space, seed=seed)
    note(f"calibrating for {', '.join(found.covers)}" + (f" ({len(found.networks)} networks)" * bool(found.networks)))
    if found.leaves:
        note(f"not for {', '.join(found.leaves)}: a minimum of training does not move smoothly with it")
    return run, found


def _advance(run: Run, folder: Folder, watch: Watch) -> None:
    from condensery import runs

    with progress(run.plan.steps, "steps", "starting") as bar:
        for done in runs.advance(run, folder, watch):
            bar.at(done.step, "" if done.loss is None else f"distance of hypergradients {done.loss:.3f}")


def _report(artifact: Artifact, folder: Folder, command: str, as_json: bool) -> None:
    """What was made, and what to do with it."""
    how = artifact.provenance
    if as_json:
        files = {"folder": folder.path, "artifact": folder.artifact, "picture": folder.picture, "log": folder.log}
        paths = {key: str(path) for key, path in files.items() if path.exists()}
        facts = {key: how.get(key) for key in ("steps", "seconds", "loss", "budget", "recipe", "calibration")}
        named = {"method": artifact.method, "dataset": artifact.dataset, "per_class": artifact.per_class}
        emit({**named, **facts, "seed": artifact.seed, "spent": artifact.spent, **paths, "next": command})
        return
    spent = artifact.spent
    images = f"{spent['images']} validation images ({size(spent['bytes'])})"
    say(f"{artifact.method} on {artifact.dataset}: {images}, {how['steps']} steps, {duration(how['seconds'])}")
    loss = how.get("loss")
    if loss is not None:
        say(f"  distance of hypergradients {loss:.3f} (0: the same direction, 1: none in common)")
    say(f"  set      {folder.artifact}")
    say(f"  picture  {folder.picture}")
    say(f"  log      {folder.log}")
    say(f"  next     {command}")
