"""The command line: the only place, with the catalog, where names pick classes.

Nothing heavy is imported before a command runs, so ``condensery --help`` answers at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from condensery.cli import browse, calibrate, compare, condense, evaluate, experts, search
from condensery.cli.console import Guarded, say

app = typer.Typer(
    name="condensery",
    cls=Guarded,
    help="Learn a tiny training set that trains models nearly as well as the full one.",
    epilog="Start with: condensery demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from condensery import __version__

        say(f"condensery {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


_WORK, _FILES, _LISTS = "Make and measure", "Use what was made", "What there is"
app.command("demo", rich_help_panel=_WORK)(browse.demo)
app.command("experts", rich_help_panel=_WORK)(experts.experts)
app.command("convexify", rich_help_panel=_FILES)(experts.convexify)
app.command("condense", rich_help_panel=_WORK)(condense.condense)
app.command("select", rich_help_panel=_WORK)(condense.select)
app.command("calibrate", rich_help_panel=_WORK)(calibrate.calibrate)
app.command("evaluate", rich_help_panel=_WORK)(evaluate.evaluate)
app.command("compare", rich_help_panel=_WORK)(compare.compare)
app.command("search", rich_help_panel=_FILES)(search.search)
app.command("info", rich_help_panel=_FILES)(browse.info)
app.command("show", rich_help_panel=_FILES)(browse.show)
app.command("export", rich_help_panel=_FILES)(browse.export)
app.command("methods", rich_help_panel=_LISTS)(browse.methods)
app.command("datasets", rich_help_panel=_LISTS)(browse.datasets)


def main() -> None:
    """The entry point of the ``condensery`` program."""
    from condensery.memory import keep_freed_memory

    keep_freed_memory()
    # Threads that wait by spinning slow a busy machine down; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
