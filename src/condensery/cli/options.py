"""Options that several commands take, described once."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Device(str, Enum):  # noqa: UP042  # typer shows the values of a str enum
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Whiten(str, Enum):  # noqa: UP042
    """A whitening of the images."""

    none = "none"
    zca = "zca"
    zca_trace = "zca-trace"


class Norm(str, Enum):  # noqa: UP042
    """A normalisation."""

    none = "none"
    instance = "instance"
    batch = "batch"
    group = "group"
    layer = "layer"


_DATA, _NET, _RUN, _SCORE = "Data", "Network", "Run", "Scores"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A data set's name (see 'condensery datasets'), a folder of images by class, a folder of idx "
        "files, an .npz file, or hf:NAME for one of the Hugging Face hub; or a recommendation log: a name, a table "
        "(CSV, TSV, .inter, Parquet, u.data) or a folder of LightGCN's; or a graph: a name, an .npz file with edges, a "
        "folder with edges.csv and nodes.csv, or one of OGB's, GraphSAINT's or Planetoid's; or a set of graphs: a "
        "name, or a folder of TU Dortmund's (NAME_A.txt and others).",
        show_default=False,
    ),
]
Ipc = Annotated[
    str,
    typer.Option(
        "--ipc",
        help="Images, or graphs of a set, per class: one number, or one for each class, as 1,2,3.",
        rich_help_panel=_RUN,
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(
        help="Share of a log's interactions to keep, or nodes as a share of a graph's training nodes; default: 0.25.",
        rich_help_panel=_RUN,
        show_default=False,
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(min=1, help="Nodes of a condensed graph.", rich_help_panel=_RUN, show_default=False),
]
Artifact = Annotated[
    Path,
    typer.Argument(
        metavar="ARTIFACT",
        help="A condensed set (.safetensors), or the folder of its run.",
        show_default=False,
    ),
]
DataRoot = Annotated[
    str | None,
    typer.Option(help="Folder with a named data set's files.", rich_help_panel=_DATA, show_default=False),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Side of the square images that pictures of a folder are resized to.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
Validation = Annotated[
    float, typer.Option(help="Share of the training images held out for validation.", rich_help_panel=_DATA)
]
Whitening = Annotated[
    Whiten | None,
    typer.Option(help="Whitening of the images; default: the recipe's.", rich_help_panel=_DATA, show_default=False),
]
Network = Annotated[
    str | None,
    typer.Option(help="Architecture; default: the recipe's.", rich_help_panel=_NET, show_default=False),
]
Width = Annotated[
    int | None,
    typer.Option(min=1, help="Its width; default: the recipe's.", rich_help_panel=_NET, show_default=False),
]
Normalisation = Annotated[
    Norm | None,
    typer.Option(help="Its normalisation; default: the recipe's.", rich_help_panel=_NET, show_default=False),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the method or the run, eval.NAME, net.NAME or experts.NAME, for logs inner.NAME or "
        "proxy.NAME, for graphs and sets of graphs test.NAME; may be repeated. "
        "'condensery methods NAME' lists them.",
        rich_help_panel=_RUN,
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel=_RUN)]
Where = Annotated[Device, typer.Option(help="Where to compute.", rich_help_panel=_RUN)]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for the results; default: under runs/.", rich_help_panel=_RUN, show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Budget = Annotated[
    float,
    typer.Option(help="Share of the recipe's steps to do; less than 1 is quicker and worse.", rich_help_panel=_RUN),
]
EvalBudget = Annotated[
    float,
    typer.Option(help="Share of the evaluation recipe's passes to do.", rich_help_panel=_SCORE),
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help="Compile, and compute in bfloat16 what no outer gradient goes through: rounding differs, and a CPU with "
        "AVX-512 BF16 is about twice as fast after the first minute; one without bfloat16 compiles only.",
        rich_help_panel=_RUN,
    ),
]
N = Annotated[int, typer.Option("--n", min=1, help="Networks trained for each row.", rich_help_panel=_SCORE)]
Checks = Annotated[
    int,
    typer.Option(
        min=0,
        help="Looks at the validation split in each training, to report the pass it chooses too; 0 for none.",
        rich_help_panel=_SCORE,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        min=1,
        help="Networks trained at the same time, one thread each if more than one.",
        rich_help_panel=_SCORE,
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full/--no-full",
        help="The row of networks trained on all data; computed once, then kept.",
        rich_help_panel=_SCORE,
    ),
]
FullEpochs = Annotated[
    int,
    typer.Option(min=1, help="Passes over all data for that row.", rich_help_panel=_SCORE),
]
