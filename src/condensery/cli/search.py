"""``condensery search``: hyperparameters and architectures on condensed data in place of real data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condensery.catalog import DOMAINS, DataSource, Kind, kind_of
from condensery.cli import alike
from condensery.cli import options as o
from condensery.cli.calibrate import training_set
from condensery.cli.condense import network_options
from condensery.cli.console import Interrupted, again, duration, emit, note, progress, say, show
from condensery.cli.evaluate import describe_recipe, load, source_of

if TYPE_CHECKING:
    from rich.table import Table

    from condensery.artifact import Artifact
    from condensery.search import (
        Confirmed,
        Cost,
        ImageGround,
        NodeGround,
        SearchFolder,
        Settings,
        Strategy,
        Study,
        Trial,
    )


class On(str, Enum):  # noqa: UP042  # typer shows the values of a str enum
    """What a search runs on."""

    condensed = "condensed"
    real = "real"


class Sampler(str, Enum):  # noqa: UP042
    """What chooses configurations."""

    tpe = "tpe"
    gp = "gp"
    random = "random"
    grid = "grid"
    reinforce = "reinforce"


class Pruner(str, Enum):  # noqa: UP042
    """What ends trials early."""

    none = "none"
    median = "median"
    halving = "halving"
    hyperband = "hyperband"


class Score(str, Enum):  # noqa: UP042
    """What is maximised."""

    accuracy = "accuracy"
    loss = "loss"


_OPTUNA = (Sampler.tpe, Sampler.gp)
_LOOKS = 5  # at validation in a training that may be pruned
_SEARCH, _REAL = "Search", "Real data"


@dataclass(frozen=True)
class How:
    """How a search goes.

    Attributes:
        sampler: What chooses configurations.
        pruner: What ends trials early.
        trials: Trials in all.
        levels: Values of a range, for grids and the controller.
        jobs: Processes.
        seed: Of everything random.
    """

    sampler: Sampler
    pruner: Pruner
    trials: int
    levels: int
    jobs: int
    seed: int

    def __post_init__(self) -> None:
        if self.sampler not in _OPTUNA and (self.pruner is not Pruner.none or self.jobs > 1):
            raise ValueError(
                f"--pruner and --jobs are for {' and '.join(s.value for s in _OPTUNA)}, not for "
                f"{self.sampler.value}; leave them out or choose another --sampler."
            )


@dataclass(frozen=True)
class Grounds:
    """What is searched on, and what the best are confirmed on.

    Attributes:
        name: Of the data.
        short: Of the data, fit for a folder's name.
        data: What they are, plain data.
        device: Where they are.
        searched: The ground of the search.
        real: The ground of real data.
        test: What the winner is tested on.
        condensing: Seconds that the sets took to make.
        sets: What tells them from others, plain data.
        trained_on: What the winner is trained on, in words.
        describe: A recipe in words.
    """

    name: str
    short: str
    data: Mapping[str, Any]
    device: str
    searched: ImageGround | NodeGround
    real: ImageGround | NodeGround
    test: Any
    condensing: float
    sets: Mapping[str, Any]
    trained_on: str
    describe: Callable[[Any], str]


def search(
    context: typer.Context,
    data: o.Data,
    space: Annotated[
        Path, typer.Option(help="The search space, a .toml or .json file.", rich_help_panel=_SEARCH, show_default=False)
    ],
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="ARTIFACT",
            help="The condensed set that is trained on: its file, or the folder of its run.",
            rich_help_panel=_SEARCH,
            show_default=False,
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="ARTIFACT",
            help="A condensed set that configurations are scored on; default: the real validation images or nodes.",
            rich_help_panel=_SEARCH,
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        On, typer.Option(help="Search on condensed sets, or, to compare, on all real data.", rich_help_panel=_SEARCH)
    ] = On.condensed,
    trials: Annotated[int, typer.Option(min=1, help="Configurations to try.", rich_help_panel=_SEARCH)] = 50,
    sampler: Annotated[
        Sampler,
        typer.Option(
            help="What chooses them; tpe and gp are Optuna's (extra: search), reinforce is a GraphNAS controller.",
            rich_help_panel=_SEARCH,
        ),
    ] = Sampler.tpe,
    pruner: Annotated[
        Pruner, typer.Option(help="What ends trials early; for tpe and gp.", rich_help_panel=_SEARCH)
    ] = Pruner.none,
    levels: Annotated[
        int, typer.Option(min=1, help="Values of each range, for grid and reinforce.", rich_help_panel=_SEARCH)
    ] = 5,
    score: Annotated[
        Score | None,
        typer.Option(
            help="What is maximised: validation accuracy, or minus the loss; default: accuracy, and the loss where "
            "--val is a set of 'condensery calibrate'.",
            rich_help_panel=_SEARCH,
            show_default=False,
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Networks for each trial.", rich_help_panel=_SEARCH)] = 1,
    budget: Annotated[
        float, typer.Option(help="Share of the recipe's passes in each trial.", rich_help_panel=_SEARCH)
    ] = 1.0,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, help="Processes, for tpe and gp; more than 1 is not reproducible.", rich_help_panel=_SEARCH
        ),
    ] = 1,
    confirm: Annotated[
        int, typer.Option(min=1, help="How many of the best are trained on real data.", rich_help_panel=_REAL)
    ] = 5,
    confirm_n: Annotated[int, typer.Option(min=1, help="Networks for each of them.", rich_help_panel=_REAL)] = 1,
    full_epochs: Annotated[int, typer.Option(min=1, help="Passes over the real data.", rich_help_panel=_REAL)] = 20,
    seed: o.Seed = 0,
    device: o.Where = o.Device.auto,
    out: o.Out = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the search in the folder.", rich_help_panel="Run")
    ] = False,
    net: o.Network = None,
    width: o.Width = None,
    norm: o.Normalisation = None,
    data_root: o.DataRoot = None,
    size: o.Size = None,
    validation: o.Validation = 0.1,
    as_json: o.Json = False,
) -> None:
    """Search the best configuration of a space on condensed data, confirm the best on real data, test the winner.

    The test images or nodes are read once, by the winner, after everything else.
    """
    from condensery.search import SearchFolder, read_space

    kind = _checked(context, data, sampler, with_set=train is not None)
    how = How(sampler, pruner, trials, levels, jobs, seed)
    asked = read_space(space)
    if on is On.condensed and train is None:
        raise ValueError("There is nothing to search on; give a condensed set with --train, or --on real.")
    if on is On.real and val is not None:
        raise ValueError("A search on real data is scored on real validation data; leave --val out.")
    if sampler in _OPTUNA:
        from condensery.search.studies import load_optuna

        load_optuna()
    seeds = tuple(range(seed, seed + n))
    if kind is Kind.GRAPH:
        from condensery.cli import search_graphs

        sets = search_graphs.Sets.of(train, val)
        settings = (*(["test.net=" + net] if net else []), *([f"test.width={width}"] if width else []))
        where = alike.Where(data, data_root, device.value)
        grounds = search_graphs.grounds(sets, where, settings, on is On.real, score is Score.loss, budget, seeds)
    else:
        images = _sets(train, val)
        first = next(iter(images.values()), None)
        source = DataSource(data, data_root, size, validation) if first is None else source_of(first, data, data_root)
        by = score or (Score.loss if "val" in images and images["val"].for_validation else Score.accuracy)
        network = network_options(net, width, norm)
        grounds = _grounds(source, images, network, device.value, (on, by, budget, full_epochs, seeds))
    typed = grounds.searched.family.typed(asked)
    folder = SearchFolder(out or Path("runs") / f"search-{grounds.short}-{on.value}-{sampler.value}-seed{seed}")
    identity = _identity(how, grounds, typed, (on, confirm, confirm_n))
    with folder.claimed(identity, resume=resume):
        _check_untested(folder, trials)
        try:
            tried = _tried(how, typed, grounds, folder)
            done = _confirmed(tried, grounds, folder, confirm, [seed + 1000 + k for k in range(confirm_n)])
        except KeyboardInterrupt:
            raise Interrupted(f"go on with: {again('--resume')}") from None
        plain = _report(how, tried, done, grounds, folder, n)
    if as_json:
        emit(plain)
        return
    _say(plain, folder, grounds)


def _checked(context: typer.Context, data: str, sampler: Sampler, *, with_set: bool) -> Kind:
    """What kind the data are; what was given and means nothing for it is refused.

    Raises:
        ValueError: Naming it.
    """

    def given(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    kind = kind_of(data) or Kind.IMAGES
    if kind not in (Kind.IMAGES, Kind.GRAPH):
        raise ValueError(f"{data} {DOMAINS[kind].holds}; searches are for images and for nodes of a graph.")
    if given("levels") and sampler not in (Sampler.grid, Sampler.reinforce):
        raise ValueError(f"--levels is for grid and reinforce, not for {sampler.value}; leave it out.")
    of_images = ("validation", "size", "norm", "full_epochs", "pruner")
    for name in (name for name in of_images if kind is Kind.GRAPH and given(name)):
        raise ValueError(f"--{name.replace('_', '-')} is for images; leave it out for a graph.")
    for name in ("validation", "size"):
        if given(name) and with_set:
            raise ValueError(f"The data are split and sized as for the condensed set; leave --{name} out.")
    return kind


def _check_untested(folder: SearchFolder, trials: int) -> None:
    """Refuse to go on with more or fewer trials once a winner has been tested.

    Raises:
        ValueError: Saying so.
    """
    if not folder.result.is_file():
        return
    try:
        asked = json.loads(folder.result.read_text(encoding="utf-8"))["asked"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder.result} is damaged; remove it, or choose another --out.") from None
    if asked != trials:
        raise ValueError(
            f"The winner of {asked} trials in {folder.path} has been tested already: another one would be chosen on "
            f"the test images; give --trials {asked}, or choose another --out."
        )


def _sets(train: Path | None, val: Path | None) -> dict[str, Artifact]:
    """The condensed sets by their part.

    Raises:
        ValueError: If they do not fit together.
    """
    sets = {} if train is None else {"train": training_set(train)}
    sets |= {} if val is None else {"val": load(val)}
    if len(sets) == 2 and sets["train"].preprocessing.config() != sets["val"].preprocessing.config():
        raise ValueError("The two sets have different preprocessing; condense both with the same --whiten.")
    if len(sets) == 2 and sets["train"].classes != sets["val"].classes:
        raise ValueError("The two sets have different classes; give two sets of the same data.")
    return sets


def _grounds(
    source: DataSource,
    sets: dict[str, Artifact],
    network: dict[str, str],
    device: str,
    how: tuple[On, Score, float, int, tuple[int, ...]],
) -> Grounds:
    """What is searched and confirmed on."""
    from condensery import nets, recipes, runs, scoring
    from condensery.evaluate.transfer import prepared_for
    from condensery.fitting import Held, accuracy
    from condensery.search import ImageFamily, ImageGround, likelihood
    from condensery.search.calibration import fingerprint

    on, score, budget, full_epochs, seeds = how
    data = runs.open_data(source, device=runs.pick_device(device))
    for artifact in sets.values():
        data = prepared_for(artifact, data)
    if sets and not network:
        base = dict(sets["train"].network)
    else:
        plan = recipes.load("uniform", source.name, 1, network=network)
        base = nets.describe(runs.build_network(plan.network, data))
    whole = scoring.full_recipe(len(data.train), full_epochs)
    train, validation = runs.working(data.train), runs.working(data.validation)
    real = ImageGround(ImageFamily(base), train, validation, whole, seeds=seeds)
    measure, at = accuracy if score is Score.accuracy else likelihood, data.train.device
    seconds = sum(float(a.provenance.get("seconds", 0.0)) for a in sets.values()) if on is On.condensed else 0.0
    found = partial(
        Grounds,
        data.name,
        source.short,
        source.to_json(),
        at.type,
        real=real,
        test=data.test,
        condensing=seconds,
        sets={name: fingerprint(artifact) for name, artifact in sets.items()},
        trained_on=f"all {len(data.train):,} real images",
        describe=describe_recipe,
    )
    if on is On.real:
        return found(searched=replace(real, recipe=whole.scaled(budget), measure=measure))
    searched = replace(
        real,
        train=Held(sets["train"].batch(device=at)),
        validation=Held(sets["val"].batch(device=at)) if "val" in sets else validation,
        recipe=sets["train"].training_recipe().scaled(budget),
        measure=measure,
    )
    return found(searched=searched)


def _identity(how: How, grounds: Grounds, space: Settings, more: tuple[On, int, int]) -> dict[str, Any]:
    """What makes a search another one if it changes, as plain data."""
    from condensery.configs import to_config
    from condensery.search import space_to

    on, confirm, confirm_n = more
    ground = grounds.searched
    return {
        "on": on.value,
        "data": dict(grounds.data),
        "space": json.dumps(space_to(space)),  # the order of its settings counts
        "network": dict(ground.family.network),
        "recipe": to_config(ground.recipe),
        "real": to_config(grounds.real.recipe),
        "measure": ground.measure.__name__,
        "networks": len(ground.seeds),
        "sampler": how.sampler.value,
        "pruner": how.pruner.value,
        "levels": how.levels,
        "seed": how.seed,
        "confirm": {"best": confirm, "networks": confirm_n},
        "sets": dict(grounds.sets),
        "device": grounds.device,
    }


def _tried(how: How, space: Settings, grounds: Grounds, folder: SearchFolder) -> list[Trial]:
    """The trials, found or made, with a progress bar."""
    with progress(how.trials, "trials", "starting") as bar:
        if how.sampler in _OPTUNA:
            return _by_optuna(how, space, grounds, folder, bar)
        from condensery.search import explore

        done: list[Trial] = []
        for trial in explore(_strategy(how, space), grounds.searched, how.trials, log=folder.trials):
            done.append(trial)
            bar.at(len(done), _best_of(done))
    if len(done) < how.trials:
        note(f"the space has {len(done)} configurations; all were tried")
    return done


def _by_optuna(how: How, space: Settings, grounds: Grounds, folder: SearchFolder, bar: Any) -> list[Trial]:
    from condensery.search.studies import load_optuna

    optuna = load_optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its advice would break the progress bar
    study = _study(how, folder)
    ground: Any = grounds.searched
    ground = ground if how.pruner is Pruner.none else replace(ground, looks=_LOOKS)
    if folder.study.is_file():
        study.forget_interrupted()
    done = study.trials()
    bar.begin(len(done), _best_of(done))
    if how.jobs > 1:
        for _ in study.run_workers(space, ground, how.trials, how.jobs):
            done = study.trials()
            bar.at(len(done), _best_of(done))
    else:
        for trial in study.run(space, ground, how.trials):
            done.append(trial)
            bar.at(len(done), _best_of(done))
    return study.trials()


def _study(how: How, folder: SearchFolder) -> Study:
    """The study with what the options name."""
    import optuna

    from condensery.search import Study

    samplers: dict[Sampler, Any] = {Sampler.tpe: optuna.samplers.TPESampler, Sampler.gp: optuna.samplers.GPSampler}
    pruners: dict[Pruner, Any] = {
        Pruner.none: optuna.pruners.NopPruner,
        Pruner.median: optuna.pruners.MedianPruner,
        Pruner.halving: optuna.pruners.SuccessiveHalvingPruner,
        Pruner.hyperband: partial(optuna.pruners.HyperbandPruner, max_resource=_LOOKS),
    }
    return Study(folder.study, samplers[how.sampler], pruners[how.pruner](), how.seed)


def _strategy(how: How, space: Settings) -> Strategy:
    """What needs no Optuna."""
    import torch

    from condensery.search import Grid, Random, Reinforce

    generator = torch.Generator().manual_seed(how.seed)
    if how.sampler is Sampler.grid:
        return Grid(space, levels=how.levels)
    return Random(space, generator) if how.sampler is Sampler.random else Reinforce(space, generator, levels=how.levels)


def _confirmed(
    tried: list[Trial], grounds: Grounds, folder: SearchFolder, count: int, seeds: list[int]
) -> list[Confirmed]:
    """The best on real data, with a progress bar; the last one is the winner with its test accuracy."""
    from condensery import search as library

    chosen = library.best(tried, count)
    if not chosen:
        raise ValueError(
            "No trial has a score: every configuration diverged, was pruned or made nothing; widen the space."
        )
    fit = partial(grounds.real.fit, test=grounds.test)
    done: list[Confirmed] = []
    with progress(len(chosen), "on real data", "starting") as bar:
        for one in library.confirm(chosen, fit, seeds, log=folder.confirmed):
            done.append(one)
            bar.at(min(len(done), len(chosen)), f"validation {100 * one.validation.mean:.1f} %")
    return done


def _best_of(trials: list[Trial]) -> str:
    from condensery.search import best

    found = best(trials)
    return f"best {found[0].score:.4g} ({words(found[0].config)})"[:100] if found else "none has a score yet"


def words(config: dict[str, Any]) -> str:
    """A configuration as one would type it.

    Example:
        >>> words({"eval.lr": 0.012345678, "net.norm": "group"})
        'eval.lr=0.01235 net.norm=group'
    """
    said = (
        f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
        for value in config.values()
    )
    return " ".join(f"{name}={value}" for name, value in zip(config, said, strict=True))


def _report(
    how: How, tried: list[Trial], done: list[Confirmed], grounds: Grounds, folder: SearchFolder, n: int
) -> dict[str, Any]:
    """Everything as plain data, written into the folder with the picture."""
    import torch

    from condensery.search import among_confirmed
    from condensery.search.confirm import to_json
    from condensery.store import write_text

    *all_, winner = done
    found = among_confirmed(all_, torch.Generator().manual_seed(how.seed))
    plain = {
        "dataset": grounds.name,
        "asked": how.trials,
        "trials": [asdict(trial) for trial in tried],
        "confirmed": [to_json(one) for one in all_],
        "winner": to_json(winner),
        "agreement": None if found is None else found.to_json(),
        "cost": _cost(tried, all_, grounds, n).to_json(),
        "folder": str(folder.path),
    }
    write_text(folder.result, json.dumps(plain, indent=1, allow_nan=False) + "\n")
    if found is not None:
        _draw(all_, winner, folder, grounds)
    return plain


def _cost(tried: list[Trial], done: list[Confirmed], grounds: Grounds, n: int) -> Cost:
    from condensery.search import Cost

    seconds = sum(one.seconds for one in done)
    once = seconds / sum(one.validation.n for one in done)
    return Cost(grounds.condensing, sum(t.seconds for t in tried), seconds, len(tried), n * once)


def _draw(done: list[Confirmed], winner: Confirmed, folder: SearchFolder, grounds: Grounds) -> None:
    from condensery import charts, pictures

    points = charts.Points("confirmed", [one.searched for one in done], [one.validation.mean for one in done])
    picture = charts.scatter(
        [points],
        x_title="score in the search",
        y_title="validation accuracy, trained on real data",
        title=f"The best of the search on {grounds.name}; the ring is the winner",
        marked=(winner.searched, winner.validation.mean),
    )
    pictures.save(picture, folder.picture)


def _say(plain: dict[str, Any], folder: SearchFolder, grounds: Grounds) -> None:
    """The table and what it cost."""
    show(_table(plain))
    cost, found = plain["cost"], plain["agreement"]
    tested = plain["winner"]["test"]
    mean = 100 * sum(tested) / len(tested)
    say(f"winner   {words(plain['winner']['config'])}")
    say(f"         test accuracy {mean:.1f} % (n={len(tested)}), trained on {grounds.trained_on}")
    if found is not None and None not in found["spearman"].values():
        s = found["spearman"]
        say(
            f"ranking  Spearman {s['value']:.2f} [{s['low']:.2f}, {s['high']:.2f}] against real validation, among the "
            f"{found['n']} best alone"
        )
    parts = f"condensing {duration(cost['condensing'])}, {cost['trials']} trials {duration(cost['searching'])}, "
    parts += f"confirming {duration(cost['confirming'])}"
    say(f"time     {duration(cost['spent'])}: {parts}")
    say(f"         the same trials on real data: about {duration(cost['on_real'])}, by the time that the best took")
    say(f"results  {folder.path}")
    say(f"trained  in the search {grounds.describe(grounds.searched.recipe)}")
    say(f"         on real data {grounds.describe(grounds.real.recipe)}")


def _table(plain: dict[str, Any]) -> Table:
    from rich.table import Table

    rows = sorted(plain["confirmed"], key=lambda one: -one["searched"])
    names = list(dict.fromkeys(name for one in rows for name in one["config"]))
    table = Table(
        title=f"The best {len(rows)} of {len(plain['trials'])} trials on {plain['dataset']}", title_justify="left"
    )
    for name in names:
        table.add_column(name, justify="right")
    for heading in ("score in\nthe search", "real\nvalidation, %", "time on\nreal data"):
        table.add_column(heading, justify="right")
    for one in rows:
        cells = [
            words({name: one["config"][name]}).partition("=")[2] if name in one["config"] else "" for name in names
        ]
        mean = 100 * sum(one["validation"]) / len(one["validation"])
        style = "bold" if one["config"] == plain["winner"]["config"] else None
        table.add_row(*cells, f"{one['searched']:.4g}", f"{mean:.1f}", duration(one["seconds"]), style=style)
    return table
