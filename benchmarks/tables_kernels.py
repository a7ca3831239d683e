"""The tables of kernel and implicit-gradient methods, for `tables.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tables import ACROSS, NAMES, load, markdown, place, reached, score

METHODS = ["kip", "rfad", "frepo", "vig", "cig", "cig-low", "cig-cg-low", "rcig", "rcig-dual", "rcig-cg", "rcig-cg-low"]
ROWS = ["random", "dm", *METHODS]
TITLES = {
    "frepo": "FRePo",
    "cig-low": "CIG, products in bfloat16",
    "cig-cg-low": "CIG, CG in bfloat16",
    "rcig": "RCIG, 20 + 20 Adam steps",
    "rcig-dual": "RCIG, dual",
    "rcig-cg": "RCIG, CG",
    "rcig-cg-low": "RCIG, CG in bfloat16",
    "random": "random subset",
}
# Test accuracy in per cent as the RCIG paper has it: tables 1 and 2, width 128, 5,000 to 15,000 iterations.
PUBLISHED: dict[tuple[str, str, int], float] = {
    ("random", "mnist", 1): 62.7,
    ("random", "mnist", 10): 93.2,
    ("random", "cifar10", 1): 20.8,
    ("random", "cifar10", 10): 38.4,
    ("vig", "mnist", 1): 77.4,
    ("vig", "mnist", 10): 90.2,
    ("vig", "cifar10", 1): 26.5,
    ("vig", "cifar10", 10): 54.6,
    ("cig", "mnist", 1): 69.2,
    ("cig", "mnist", 10): 95.4,
    ("cig", "cifar10", 1): 29.7,
    ("cig", "cifar10", 10): 56.5,
    ("rcig", "mnist", 1): 94.8,
    ("rcig", "mnist", 10): 98.9,
    ("rcig", "fashion-mnist", 1): 79.8,
    ("rcig", "fashion-mnist", 10): 88.5,
    ("rcig", "cifar10", 1): 52.8,
    ("rcig", "cifar10", 10): 69.2,
    ("frepo", "cifar10", 1): 46.8,
    ("frepo", "cifar10", 10): 65.5,
    ("kip", "cifar10", 1): 49.9,
    ("kip", "cifar10", 10): 62.7,
    ("rfad", "cifar10", 1): 53.6,
    ("rfad", "cifar10", 10): 66.3,
}
# Table S3: without and with augmentation.
AUTHORS = {("cifar10", 1): "53.9 ± 1.0, with augmentation 50.9 ± 1.5 (n=15)"}
DATA = list(NAMES)
TAGS = {"": "", "long": ", longer", "bn": ", batch normalisation while condensing"}
SHOWN = ("", "long")  # in the tables of methods; the others are rows of `across`


def runs(*methods: str) -> list[dict[str, Any]]:
    """Condensed sets of `benchmarks/kernels.py`, in the tables' order."""
    found = [
        r for r in load("kernels") if "row" in r and "network" not in r and "source" not in r and r["tag"] in SHOWN
    ]
    found = [r for r in found if not methods or r["method"] in methods]
    return sorted(
        found,
        key=lambda r: (
            DATA.index(r["dataset"]),
            r["per_class"],
            r["width"],
            ROWS.index(r["method"]),
            r["tag"],
            r["set_seed"],
        ),
    )


def title(r: dict[str, Any]) -> str:
    """The method's name."""
    name = TITLES.get(r["method"], r["method"].upper()) + TAGS[r.get("tag", "")]
    name += f", width {r['width']}" if r.get("width", 32) != 32 else ""
    return name + (f", set {r['set_seed'] + 1}" if r.get("set_seed") else "")


def processors(found: list[dict[str, Any]]) -> str:
    """What the rows ran on."""
    return " and ".join(sorted({r["hardware"]["processor"] for r in found}))


def lowered(r: dict[str, Any]) -> bool:
    """Whether test networks were trained in bfloat16."""
    return r.get("autocast", "None") != "None"


def conditions(found: list[dict[str, Any]]) -> str:
    """What the rows have in common."""
    r = found[0]
    networks = ", ".join(sorted({f["row"]["network"] for f in found if "row" in f}))
    fits = {f"{NAMES[f['dataset']]} at {f['per_class']}": f["evaluation"]["steps"] for f in found}
    said = "; ".join(f"{where}: {steps:,}" for where, steps in fits.items())
    where = "in bfloat16 from 10 images a class or width 128 on, where the processor has it"
    low = f" ({where})" if any(map(lowered, found)) else ""
    return (
        f"{networks} (widths double by stage), softplus while condensing; last iterate or its average, {ACROSS}. "
        f"Steps of a test network: {said}{low}. {processors(found)}, {r['threads']} thread a run, PyTorch "
        f"{r['versions']['torch']}. Made by `benchmarks/kernels.py`, files in `benchmarks/results/kernels/`."
    )


def table(*methods: str) -> str:
    """All methods, or some beside the random subset."""
    mine = runs(*methods)
    sizes = {(r["dataset"], r["per_class"]) for r in mine}
    found = [r for r in runs(*methods, *(["random"] if methods else [])) if (r["dataset"], r["per_class"]) in sizes]
    heads = ["data", "images a class", "method", "test accuracy, %", "with augmentation, %", "published, %", "steps"]
    rows = []
    for r in found:
        known = PUBLISHED.get((r["method"].partition("-")[0], r["dataset"], r["per_class"]))
        augmented = score(r["augmented"]["last"]) if "augmented" in r else ""
        made = r["method"] != "random"
        steps, cost = (f"{r['steps']:,}", seconds(r)) if made else ("", "")
        memory = f"{r['peak_memory_mb']:.0f}" if made else ""
        published = "" if known is None else f"{known}"
        rows.append([*place(r), title(r), reached(r), augmented, published, steps, cost, memory])
    regressed = [r for r in found if "kernel_accuracy" in r]
    notes = [f"{', '.join(place(r))}: {100 * r['kernel_accuracy']:.1f}" for r in regressed]
    by_kernel = f" KIP's own kernel regression, on the test images: {'; '.join(notes)}." if notes else ""
    made = markdown([*heads, "CPU seconds a step", "peak MB"], rows)
    warning = (
        "Published numbers are of width 128 and thousands of iterations: they say what a method can reach, and are not "
        "comparable with ours."
    )
    return f"{made}\n\n{warning}{by_kernel} {conditions(found)}" if found else made


def seconds(r: dict[str, Any]) -> str:
    """CPU seconds of a step, all methods of a setting measured in one process."""
    for c in load("kernels"):
        if c["name"] == f"costs-{r['dataset']}-ipc{r['per_class']}" and r["method"] in c["cpu_seconds_a_step"]:
            return f"{c['cpu_seconds_a_step'][r['method']]:.2f}"
    return ""


def solvers() -> str:
    """RCIG's validation accuracy for the same work under different solvers."""
    found = [r for r in load("kernels") if "points" in r and "solver" in r]
    order = [f"descent-{steps}" for steps in ("0-0", "5-5", "20-0", "20-20")]
    order += ["cg-10", "cg", "cg-low", "dual-20", "direct"]
    found.sort(key=lambda r: (r["dataset"], r["per_class"], order.index(r["solver"])))
    rows = []
    for r in found:
        cells = [f"{score(p['row']['last'])} ({p['steps']})" for p in r["points"]]
        rows.append([*place(r), called(r["solver"]), *cells])
    marks = [
        f"{round(min(p['cpu_seconds'] for p in c) / 10) * 10:.0f} s"
        for c in zip(*(r["points"] for r in found), strict=True)
    ]
    made = markdown(["data", "images a class", "solver", *marks], rows)
    if not found:
        return made
    r = found[0]
    said = (
        "*Validation* accuracy in per cent after so many CPU seconds of condensing, and in brackets the steps made in "
        f"them. ConvNet-3 of widths {r['width']}, {2 * r['width']} and {4 * r['width']}; mean and standard deviation "
        f"over n networks on one set; {processors(found)}, {r['threads']} thread, PyTorch "
        f"{r['versions']['torch']}. Made by `benchmarks/kernels.py study`."
    )
    return f"{made}\n\n{said}"


def called(solver: str) -> str:
    """A solver of the study in words."""
    plain = solver.removesuffix("-low")
    if plain != solver:
        return f"{called(plain)}, products in bfloat16"
    kind, *numbers = solver.split("-")
    if kind == "descent":
        return f"Adam, {numbers[0]} + {numbers[1]} steps" + (" (FRePo's gradient)" if numbers == ["0", "0"] else "")
    if kind == "cg":
        how = f"up to {numbers[0]} + {numbers[0]} steps" if numbers else "to a residual of 1e-2"
        return f"CG in the parameters, {how}"
    return "dual, factorised" if kind == "direct" else f"CG in the dual, up to {numbers[0]} + {numbers[0]} steps"


def near() -> str:
    """How near solvers come to RCIG's exact gradient."""
    found = sorted((r for r in load("kernels") if "near" in r), key=lambda r: (r["dataset"], r["per_class"]))
    heads = ["data", "images a class", "solver", "error of the gradient, %", "cosine"]
    heads += ["left of the inner problem", "of the inverse one", "CPU seconds of the step"]
    rows = []
    for r in found:
        for p in r["near"]:
            solver = {"exact": "the exact gradient", "another real batch": "the exact one, of other real images"}
            name = solver.get(p["solver"]) or called(p["solver"]).replace("up to ", "")
            error = [f"{100 * p['error']:.3f}", f"{p['cosine']:.4f}"] if "error" in p else ["", ""]
            left = [f"{p[key]:.1e}" for key in ("inner_residual", "inverse_residual")]
            rows.append([*place(r), name, *error, *left, f"{p['cpu_seconds']:.1f}"])
    made = markdown(heads, rows)
    if not found:
        return made
    r = found[0]
    said = (
        "The gradient in the images at the set that a run begins with, for one network of width "
        f"{r['width']} that has made one step, 256 real images; without clipping and margin. The two forms measure "
        f"what is left of different equations. {processors(found)}, {r['threads']} thread, PyTorch "
        f"{r['versions']['torch']}. Made by `benchmarks/kernels.py gradients`."
    )
    return f"{made}\n\n{said}"


def across() -> str:
    """The same sets under networks that they were not made with."""
    found = [r for r in load("kernels") if "network" in r]
    found.sort(key=lambda r: (r["dataset"], r["per_class"], ROWS.index(r["method"])))
    networks = list(dict.fromkeys(r["network"] for r in found))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for r in found:
        cells.setdefault((*place(r), title(r)), {})[r["network"]] = reached(r)
    heads = ["data", "images a class", "trained on", *map(network_title, networks)]
    made = markdown(heads, [[*key, *(row.get(n, "") for n in networks)] for key, row in cells.items()])
    said = "Test accuracy in per cent; networks train in bfloat16, where the processor has it."
    return f"{made}\n\n{said} {conditions(found)}" if found else made


def network_title(name: str) -> str:
    """An architecture, its normalisation and its width as a column's head."""
    first, *changes = name.split(":")
    return ", ".join([first, *(f"width {c}" if c.isdigit() else f"norm {c}" for c in changes)])


def subsets() -> str:
    """What a step costs on a large set by the share of examples in the backward pass."""
    found = sorted((r for r in load("kernels") if "points" in r and "images" in r), key=lambda r: r["width"])
    rows = []
    for r in found:
        for p in r["points"]:
            count = "all" if p["backward"] is None else f"{p['backward']:,}"
            kept = "all" if p["kept_mb"] is None else f"up to {p['kept_mb']} MB"
            seconds = [f"{p[key]:.1f}" for key in ("cpu_seconds_a_step", "differentiating")]
            rows.append([str(r["width"]), f"{r['images']:,}", count, kept, *seconds, f"{p['peak_memory_mb']:.0f}"])
    heads = [
        "width",
        "images in the set",
        "differentiated",
        "graphs kept",
        "CPU seconds a step",
        "of them differentiating",
        "peak MB",
    ]
    made = markdown(heads, rows)
    if not found:
        return made
    r = found[0]
    return (
        f"{made}\n\nRCIG by its dual on CIFAR-10, ConvNet-3 (widths double by stage); median of "
        f"steps, n={r['steps']}. Peak memory is what a step takes beside the data. {processors(found)}, "
        f"{r['threads']} thread, PyTorch {r['versions']['torch']}. Made by `benchmarks/kernels.py subsets`."
    )


def published() -> str:
    """Sets of RCIG's authors under this library's evaluation."""
    found = sorted((r for r in load("kernels") if "source" in r), key=lambda r: r["width"])
    heads = ["data", "images a class", "width of test networks", "test accuracy, %", "with augmentation, %"]
    rows = []
    for r in found:
        augmented = score(r["augmented"]["last"]) if "augmented" in r else ""
        known = AUTHORS.get((r["dataset"], r["per_class"]), "") if r["width"] == 128 else ""
        rows.append([*place(r), str(r["width"]), reached(r), augmented, known])
    made = markdown([*heads, "published, %"], rows)
    return f"{made}\n\nFrom {found[0]['source']}. {conditions(found)}" if found else made


MAKERS: dict[str, Callable[[], str]] = {
    "kernels": table,
    "solvers": solvers,
    "near": near,
    "kernels-across": across,
    "published-sets": published,
    "subsets": subsets,
    **{
        name: partial(table, *(m for m in METHODS if m.partition("-")[0] == name))
        for name in ("kip", "rfad", "frepo", "vig", "cig", "rcig")
    },
}
