"""What the commands do alike for logs, graphs and sets of graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from condensery.cli.console import duration, emit, progress, say

if TYPE_CHECKING:
    from rich.table import Table

    from condensery.evaluate.score import Row
    from condensery.runs import Folder, Progress

T = TypeVar("T")


class Made(Protocol):
    """A condensed log or graph, as far as it is treated alike."""

    @property
    def method(self) -> str:
        """What made it."""

    @property
    def dataset(self) -> str:
        """Of what."""

    @property
    def seed(self) -> int:
        """With which seed."""

    @property
    def spent(self) -> dict[str, Any]:
        """What it really costs."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the programs that wrote it."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Seconds, steps, data, hardware."""


@dataclass(frozen=True)
class Where:
    """Where a condensed log or graph is evaluated.

    Attributes:
        data: The data as typed, or ``None`` for those that it was made from.
        root: Folder of named data.
        device: Where to compute.
    """

    data: str | None
    root: str | None
    device: str


def file_of(path: Path) -> Path:
    """The file of a condensed set, from its own path or its run's folder."""
    return path / "artifact.safetensors" if path.is_dir() else path


def recorded(made: Made, where: Where, what: str) -> tuple[str, str | None, Mapping[str, Any]]:
    """Which data to evaluate on: spec and root as recorded, or others read in the same way, and that way.

    Args:
        made: The condensed log or graph.
        where: What was asked for.
        what: It, for the message.

    Raises:
        ValueError: If the file does not say what it was made from.
    """
    plain = made.provenance.get("data")
    if not isinstance(plain, Mapping) or not isinstance(plain.get("spec"), str):
        raise ValueError(f"The file does not say how its {what} was read and split; condense the {what} again.")
    kept = plain.get("root")
    kept = kept if isinstance(kept, str) and Path(kept).is_dir() else None
    named = where.data is None or plain["spec"] in (where.data, where.data.lower(), str(Path(where.data).resolve()))
    return where.data or plain["spec"], where.root or (kept if named else None), plain


def report(made: Made, folder: Folder, size: str, what: str, more: Mapping[str, Any], *, as_json: bool) -> None:
    """Say what was made and where it is.

    Args:
        made: The condensed log or graph.
        folder: Where it is.
        size: Its size in words.
        what: What it is, in at most eight letters.
        more: What is said of it in JSON besides.
        as_json: Whether JSON is wanted.
    """
    how = made.provenance
    if as_json:
        files = {"folder": folder.path, "artifact": folder.artifact, "log": folder.log}
        paths = {key: str(path) for key, path in files.items() if path.exists()}
        facts = facts_of(how)
        named = {"method": made.method, "dataset": made.dataset, **more}
        emit({**named, **facts, "seed": made.seed, "spent": made.spent, **paths})
        return
    steps = f"{done_of(how)}, " if how.get("steps") else ""
    say(f"{made.method} on {made.dataset}: {size}, {steps}{duration(how.get('seconds', 0.0))}")
    say(f"  {what:<8} {folder.artifact}")
    if folder.log.is_file():
        say(f"  {'steps':<8} {folder.log}")
    say(f"  {'next':<8} condensery evaluate {folder.path}")


def facts_of(how: Mapping[str, Any]) -> dict[str, Any]:
    """What is said in JSON of how a set was made, from its provenance."""
    kept = ("kept_step", "kept_validation")
    facts = {key: how.get(key) for key in ("steps", "seconds", "loss", "budget", "recipe")}
    return {**facts, **{key: how[key] for key in kept if key in how}}


def done_of(how: Mapping[str, Any]) -> str:
    """How many steps were done, and after which the set was kept, from its provenance.

    Example:
        >>> done_of({"steps": 100}), done_of({"steps": 100, "kept_step": 20, "kept_validation": 0.75})
        ('100 steps', '100 steps (kept: step 20, validation 75.0 %)')
    """
    if "kept_step" not in how:
        return f"{how['steps']} steps"
    return f"{how['steps']} steps (kept: step {how['kept_step']}, validation {100 * how['kept_validation']:.1f} %)"


def tell_kept(how: Mapping[str, Any]) -> None:
    """Say under a table of test accuracies which step's set was kept, if one was chosen on the validation data.

    Args:
        how: The set's provenance.
    """
    if "kept_step" in how:
        say(
            f"The set is step {how['kept_step']}'s of {how['steps']}, kept for its validation accuracy "
            f"({100 * how['kept_validation']:.1f} %)."
        )


def watched(steps: Iterable[Progress], total: int) -> None:
    """The steps of a run, with a progress bar, the loss and what was seen on the validation split."""
    with progress(total, "steps", "starting") as bar:
        for done in steps:
            loss = "" if done.loss is None else f"loss {done.loss:.4g}"
            seen = "" if done.validation is None else f"  validation {100 * done.validation:.1f} %"
            bar.at(done.step, loss + seen)


def one_row(rows: Iterable[Row], network: str, name: str, tell: Callable[[str], None]) -> Row:
    """Rows of single networks as one, each told of as it comes.

    Args:
        rows: Of a network each.
        network: Its architecture.
        name: What was trained on.
        tell: Takes a phrase.
    """
    from condensery.evaluate.score import merged

    done = []
    for row in rows:
        done.append(row)
        tell(f"{name}, {network}: {100 * row.last.mean:.1f} %")
    return merged(done)


def score_table(
    scores: Mapping[str, Any],
    headings: Sequence[str],
    size_of: Callable[[Mapping[str, Any]], Sequence[str]],
    asked: str,
) -> Table:
    """A table of accuracies of graphs or sets of graphs, for people.

    Args:
        scores: As `Scores.to_json` gives them.
        headings: Of the last accuracy, the chosen one, the share of that on all data, and the parts of the size.
        size_of: Those parts.
        asked: The heading of a first column with the size that was asked for; empty for none.
    """
    from rich.table import Table

    table = Table(title=f"Test accuracy on {scores['dataset']}, %", title_justify="left")
    for heading in (*([asked] if asked else []), "trained on", "network", *headings, "time"):
        table.add_column(heading, justify="left" if heading in ("trained on", "network") else "right")
    before: Any = None
    for row in scores["rows"]:
        group = row["asked"] if asked else row["network"]
        if before not in (None, group):
            table.add_section()
        before = group
        table.add_row(
            *([group] if asked else []),
            row["name"],
            row["network"],
            _accuracy(row["last"]),
            _accuracy(row["chosen"]),
            "" if row["recovery"] is None else f"{100 * row['recovery']:.1f} %",
            *size_of(row["size"]),
            duration(row["seconds"]),
        )
    return table


def _accuracy(score: Mapping[str, Any]) -> str:
    from condensery.evaluate.score import Score

    return str(Score(tuple(score["values"])))


def facts_of_graphs(made: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the tensors of a condensed graph or set of graphs, as plain data.

    Args:
        made: It.
        more: What only its kind has.
    """
    from condensery import configs

    indices = made.indices
    return {
        "method": made.method,
        "dataset": made.dataset,
        "classes": list(made.classes),
        "per_class": made.per_class,
        **more,
        "spent": made.spent,
        "real": dict(made.real),
        "preprocessing": made.preprocessing.config(),
        "network": dict(made.network),
        "recipe": configs.to_config(made.recipe),
        "options": dict(made.options),
        "seed": made.seed,
        "split": dict(made.split),
        "indices": None if indices is None else indices.tolist(),
        "scores": dict(made.scores),
        "versions": dict(made.versions),
        "provenance": dict(made.provenance),
    }


def lines_of_graphs(
    made: Any, first: Sequence[tuple[str, str]], last: Sequence[tuple[str, str]], recipe: str
) -> list[tuple[str, str]]:
    """A condensed graph or set of graphs as people read it: names, and what there is to say of each.

    Args:
        made: It.
        first: What only its kind has, before the preprocessing.
        last: And after all settings.
        recipe: The evaluation in a phrase.
    """
    network, split = dict(made.network), dict(made.split)
    notes = split.pop("notes", [])
    said = [
        *heading(made),
        *first,
        ("preprocessing", phrase(made.preprocessing.config())),
        ("network", f"{network.pop('net', '?')} ({phrase(network)})"),
        ("evaluation", recipe),
        ("split", phrase(split)),
    ]
    titles = {"network": "condensed with", "data": "reading"}
    parts = [(name, part) for name, part in made.options.items() if isinstance(part, Mapping)]
    said += [(titles.get(name, name), phrase(part)) for name, part in parts if name != "evaluation"]
    said += [("cleaned", " ".join(map(str, notes)))] if notes else []
    return [*said, *last, *ending(made)]


def heading(made: Made) -> list[tuple[str, str]]:
    """The first lines of what people read about it."""
    source = made.provenance.get("data")
    spec = source["spec"] if isinstance(source, Mapping) and "spec" in source else "?"
    return [("method", f"{made.method}, seed {made.seed}"), ("data", f"{made.dataset} ({spec})")]


def ending(made: Made) -> list[tuple[str, str]]:
    """The last ones: the recipe, what it took, the versions."""
    how = dict(made.provenance)
    how.pop("data", None)
    recipe = how.pop("recipe", ())
    if isinstance(how.get("seconds"), float):
        how["seconds"] = duration(how["seconds"])
    return [("recipe", "; ".join(map(str, recipe))), ("made", phrase(how)), ("versions", phrase(made.versions))]


def phrase(values: Mapping[str, Any]) -> str:
    """Plain data as ``name value, name value``."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items() if v is not None)


def old_scores(scores: Mapping[str, Any], table_of: Callable[[Mapping[str, Any]], T], what: str) -> T:
    """The scores that a file carries, as a table.

    Raises:
        ValueError: If they are not in this version's form.
    """
    try:
        return table_of(scores)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"The scores in the file are not in the form that this version reads; evaluate the {what} again."
        ) from None
