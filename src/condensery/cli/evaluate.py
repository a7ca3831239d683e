"""``condensery evaluate``: how good a set is, beside honest baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condensery.catalog import DATASETS, DataSource, Kind, network_name
from condensery.cli import alike, kinds
from condensery.cli import options as o
from condensery.cli.console import Interrupted, again, duration, emit, note, progress, say, show

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from condensery.artifact import Artifact
    from condensery.data import ImageData
    from condensery.evaluate import Row, Scores
    from condensery.fitting import Recipe
    from condensery.scoring import Part, Protocol


def evaluate(
    context: typer.Context,
    artifact: o.Artifact,
    data: Annotated[
        str | None,
        typer.Option(help="The data; default: what the set was made from.", rich_help_panel="Data", show_default=False),
    ] = None,
    nets: Annotated[
        str | None,
        typer.Option(
            "--nets",
            "--net",
            help="Architectures, as ConvNet,AlexNet,ResNet18:norm=batch; default: the set's own. For a log "
            "MF,LightGCN, for a graph GCN,SAGE,GAT,GIN,SGC,ChebNet,APPNP,GDC,GraphTransformer,NodeMLP,Polynomial, for "
            "a set of graphs PooledGCN,PooledSGC,PooledGIN,PooledMLP.",
            rich_help_panel="Network",
            show_default=False,
        ),
    ] = None,
    n: o.N = 5,
    checks: o.Checks = 10,
    robust: Annotated[
        bool,
        typer.Option("--robust", help="Add rows with hard labels and without augmentation.", rich_help_panel="Scores"),
    ] = False,
    full: o.Full = True,
    full_epochs: o.FullEpochs = 20,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Passes over the set (steps for a graph); default: the set's recipe.",
            rich_help_panel="Scores",
            show_default=False,
        ),
    ] = None,
    eval_budget: o.EvalBudget = 1.0,
    fast: o.Fast = False,
    jobs: o.Jobs = 1,
    seed: o.Seed = 0,
    device: o.Where = o.Device.auto,
    save: Annotated[
        bool, typer.Option("--save", help="Write the scores into the artifact too.", rich_help_panel="Scores")
    ] = False,
    data_root: o.DataRoot = None,
    as_json: o.Json = False,
) -> None:
    """Train fresh models on a set, log or graph, test each once, and compare with random subsets and with all data."""
    from condensery import scoring
    from condensery.cli import graph_sets, graphs, logs
    from condensery.cli.condense import quick

    kind = kinds.of_file(artifact)
    taken = ("artifact", "data", "nets", "n", "full", "epochs", "eval_budget", "seed", "device", "save", "data_root")
    if kind is Kind.GRAPH_SET:
        kinds.only_for(context, kind, *taken, "as_json", "full_epochs")
        many = graph_sets.Scoring(n, seed, full, epochs, eval_budget, full_epochs)
        where = alike.Where(data, data_root, device.value)
        graph_sets.evaluate(artifact, many, where, nets=nets, save=save, as_json=as_json)
        return
    if kind is not Kind.IMAGES:
        kinds.only_for(context, kind, *taken, "as_json")
        of: Any = graphs if kind is Kind.GRAPH else logs
        how, where = of.Scoring(n, seed, full, epochs, eval_budget), alike.Where(data, data_root, device.value)
        of.evaluate(artifact, how, where, nets=nets, save=save, as_json=as_json)
        return
    path = artifact_path(artifact)
    loaded = load(path)
    refuse_validation(loaded, path)
    opened = open_for(loaded, data, data_root, device.value)
    shortened = with_passes(loaded, epochs, eval_budget)
    faster = quick(fast, device=device.value)
    protocol = make_protocol(n, checks, jobs, seed, full=full, full_epochs=full_epochs, robust=robust, faster=faster)
    modules = networks(nets, loaded)
    parts = run_table(shortened, opened, modules, protocol)
    scores = scoring.join(parts, opened.name)
    if save:
        replace(loaded, scores=scores.to_json()).save(path)
    if as_json:
        emit(
            {
                **scores.to_json(),
                "artifact": str(path),
                "recipe": describe_recipe(shortened.training_recipe()),
            }
        )
        return
    show(table_of(scores))
    say(f"Each network is trained by the set's recipe: {describe_recipe(shortened.training_recipe())}.")
    alike.tell_kept(loaded.provenance)


def run_table(artifact: Artifact, data: ImageData, modules: Sequence[nn.Module], protocol: Protocol) -> list[Part]:
    """Compute a table with a progress bar."""
    from condensery import scoring

    announce_full(data, modules, protocol)
    parts: list[Part] = []
    cached = False
    try:
        with progress(scoring.expected(artifact, data, len(modules), protocol), "", "training") as bar:
            for part in scoring.table(artifact, data, modules, protocol):
                parts.append(part)
                cached |= part.cached
                row = part.rows[0]
                bar.add(part.images, f"{row.name} {100 * row.last.mean:.1f} %")
    except KeyboardInterrupt:
        raise Interrupted(f"full-data networks that were done are kept; run again: {again()}") from None
    if cached:
        note(
            "full data: accuracies from the cache (trained before on the same data, with the same network, "
            "recipe and seeds)"
        )
    return parts


def announce_full(data: ImageData, modules: Sequence[nn.Module], protocol: Protocol) -> None:
    """Say what the full-data row costs before it is paid."""
    from condensery import scoring

    if protocol.full is None:
        return
    for module in modules:
        if not scoring.ceilings_of(data, module, protocol).has(protocol.trials):
            note(
                f"full data: {protocol.trials.n} x {type(module).__name__} for {protocol.full} passes "
                f"over {len(data.train)} images, once; --no-full leaves it out"
            )


def artifact_path(path: Path) -> Path:
    """The file of an artifact, from its own path or its run's folder."""
    return path / "artifact.safetensors" if path.is_dir() else path


def load(path: Path) -> Artifact:
    """An artifact from a file or a run's folder."""
    from condensery.artifact import Artifact

    return Artifact.load(artifact_path(path))


def refuse_validation(artifact: Artifact, path: Path) -> None:
    """Refuse a set that a calibration made where networks are to be trained on it.

    Raises:
        ValueError: Saying what it is for.
    """
    if artifact.for_validation:
        raise ValueError(
            f"{path} is a validation set of {artifact.method}, and no network is trained on it; use it with: "
            f"condensery search DATA --space FILE --train SET --val {path}"
        )


def open_for(artifact: Artifact, spec: str | None, root: str | None, device: str) -> ImageData:
    """The data of an artifact, split as they were."""
    from condensery import runs

    return runs.open_data(source_of(artifact, spec, root), device=runs.pick_device(device))


def source_of(artifact: Artifact, spec: str | None, root: str | None) -> DataSource:
    """Where an artifact's data are: as recorded, or elsewhere with the same split.

    Raises:
        ValueError: If they are neither recorded nor given.
    """
    share, seed = artifact.split.get("validation", 0.1), artifact.split.get("seed", 0)
    if not isinstance(share, float) or not isinstance(seed, int):
        raise ValueError("The set does not say how its data were split; it cannot be evaluated on the same split.")
    recorded = artifact.provenance.get("data")
    if spec is not None:
        path = Path(spec)
        resized = spec.startswith("hf:") or (
            path.is_dir() and DataSource(spec).name not in DATASETS and not _is_idx(path)
        )
        side = int(artifact.images.values.shape[-1]) if resized else None
        return DataSource(spec, root, side, share, seed)
    if not isinstance(recorded, dict) or not isinstance(recorded.get("spec"), str):
        raise ValueError("The set does not say which data it was made from; give them with --data.")
    old = recorded.get("root")
    kept = old if isinstance(old, str) and Path(old).is_dir() else None
    side = recorded.get("size")
    return DataSource(recorded["spec"], root or kept, side if isinstance(side, int) else None, share, seed)


def with_passes(artifact: Artifact, epochs: int | None, budget: float) -> Artifact:
    """The artifact with a recipe of another length."""
    recipe = artifact.recipe if epochs is None else replace(artifact.recipe, epochs=epochs, steps=None)
    if budget != 1.0:
        note(f"evaluation budget {budget:g}: {recipe.epochs} -> {recipe.scaled(budget).epochs} passes")
        recipe = recipe.scaled(budget)
    return replace(artifact, recipe=recipe)


def make_protocol(
    n: int,
    checks: int,
    jobs: int,
    seed: int,
    *,
    full: bool,
    full_epochs: int,
    robust: bool = False,
    faster: Sequence[str] = (),
) -> Protocol:
    """How to score, from the options and the settings of ``--fast``."""
    import torch

    from condensery.evaluate.transfer import Trials
    from condensery.fitting import Execution
    from condensery.scoring import Protocol

    low = torch.bfloat16 if "precision=bf16" in faster else None
    execution = Execution(autocast=low, compiled="compiled=true" in faster)
    trials = Trials(n=n, seed=seed, checks=checks, jobs=jobs, execution=execution)
    return Protocol(trials, robust=robust, full=full_epochs if full else None)


def networks(names: str | None, artifact: Artifact) -> list[nn.Module]:
    """Architectures for an artifact's images; the artifact's own where only its name is given."""
    from condensery import nets

    if names is None:
        return [artifact.build_network()]
    return build_networks(names, artifact.network, nets.VISION, network_name, ("channels", "classes", "size"))


def build_networks(
    names: str,
    own: Mapping[str, Any],
    zoo: Mapping[str, type[nn.Module]],
    proper_name: Callable[[str], str],
    given: tuple[str, ...],
) -> list[nn.Module]:
    """Architectures by name, as ``ConvNet,ResNet18:norm=batch``.

    Args:
        names: As typed.
        own: The network that a set was made for: it is taken where only its name is given.
        zoo: The networks there are.
        proper_name: The proper spelling of a name.
        given: Arguments that the data decide.

    Raises:
        ValueError: For one that there is not, or an argument that it does not take.
    """
    from condensery import nets
    from condensery.recipes import values

    modules = []
    for part in names.split(","):
        name, *settings = part.strip().split(":")
        proper = proper_name(name)
        takes = values.arguments_of(zoo[proper])
        chosen: dict[str, Any] = {}
        for key, value in map(values.split, settings):
            if key not in takes:
                raise ValueError(f"{proper} has no argument {key!r}; it takes {', '.join(takes)}.")
            chosen[key] = values.read(value, takes[key], key)
        base = own if proper == own.get("net") else {"net": proper, **{key: own[key] for key in given}}
        modules.append(nets.build({**base, **chosen}))
    return modules


def table_of(scores: Scores, title: str | None = None) -> Table:
    """A table of scores for people."""
    from rich.table import Table

    chosen = any(row.chosen is not None for row in scores.rows)
    table = Table(title=title or f"Test accuracy on {scores.dataset}, %", title_justify="left")
    table.add_column("trained on")
    table.add_column("network")
    table.add_column("last pass", justify="right")
    if chosen:
        table.add_column("pass chosen\non validation", justify="right")
    for heading in ("share of\nfull data", "images", "time", "images/s"):
        table.add_column(heading, justify="right")
    last = ""
    for row in scores.rows:
        if last and row.network != last:
            table.add_section()
        last = row.network
        cells = [row.name, row.network, str(row.last)]
        cells += [str(row.chosen) if row.chosen is not None else ""] if chosen else []
        table.add_row(
            *cells, recovered(scores, row), spent(row), duration(row.seconds), f"{row.images_per_second:,.0f}"
        )
    return table


def recovered(scores: Scores, row: Row) -> str:
    """The recovery ratio of a row, for a table."""
    ratio = scores.recovery(row)
    return "" if ratio is None else f"{100 * ratio:.1f} %"


def spent(row: Row) -> str:
    """What a set really costs, for a table."""
    stored, trained = row.size.get("images", 0), row.size.get("images_in_training")
    kind = row.size.get("labels", "hard")
    more = [f"{trained} in training"] if trained not in (None, stored) else []
    more += [f"{kind} labels"] if kind != "hard" else []
    return f"{stored:,}" + (f" ({', '.join(more)})" if more else "")


def describe_recipe(recipe: Recipe) -> str:
    """A recipe in a phrase."""
    from condensery.recipes import values

    length = f"{recipe.epochs} passes" if recipe.steps is None else f"{recipe.steps} steps"
    augment = "no augmentation"
    if recipe.augment is not None:
        words = {str(_augmentation(word)): word for word in values.AUGMENTATIONS}
        augment = f"augmentation {words.get(str(recipe.augment), type(recipe.augment).__name__)}"
    return f"{length}, {type(recipe.optimizer).__name__} {recipe.optimizer.lr:g}, {augment}"


def _augmentation(word: str) -> Any:
    from condensery import recipes

    return recipes.Evaluation(augment=word).recipe().augment


def _is_idx(path: Path) -> bool:
    return path.is_dir() and any("idx3-ubyte" in f.name for f in path.iterdir())
