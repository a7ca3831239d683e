"""Write the tables of the documentation from the result files: no number there that is not in benchmarks/results/.

python benchmarks/tables.py            # writes what lies between <!-- results:NAME --> and <!-- /results -->
python benchmarks/tables.py --check    # fails if that would change a file
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Whose table is in its result file.
READY = (
    "speed",
    "pieces",
    "products",
    "winograd",
    "unrolling",
    "speed-trajectories",
    "speed-recommendation",
    "speed-kernels",
)
# Test accuracy in per cent. DC and DSA: readme of VICO-UoE/DatasetCondensation. DM: Zhao & Bilen 2023, table 1
# (CIFAR-10 as the SATM paper quotes it too). MTT, FTD, TESLA, SATM and SATM-FI: the SATM paper, tables 2 and 9. DATM
# and random: PAD, table 1. MCT: a comment in its authors' code.
PUBLISHED: dict[tuple[str, str, int], float] = {
    ("dc", "mnist", 1): 91.7,
    ("dc", "cifar10", 1): 28.3,
    ("dc", "cifar10", 10): 44.9,
    ("dsa", "mnist", 1): 88.7,
    ("dsa", "cifar10", 1): 28.8,
    ("dsa", "cifar10", 10): 52.1,
    ("dm", "mnist", 1): 89.7,
    ("dm", "cifar10", 1): 26.0,
    ("dm", "cifar10", 10): 48.9,
    ("random", "cifar10", 1): 15.4,
    ("random", "cifar10", 10): 31.0,
    ("mtt", "cifar10", 1): 46.2,
    ("mtt", "cifar10", 10): 65.4,
    ("ftd", "cifar10", 1): 46.8,
    ("ftd", "cifar10", 10): 66.6,
    ("tesla", "cifar10", 1): 48.5,
    ("tesla", "cifar10", 10): 66.4,
    ("datm", "cifar10", 1): 46.9,
    ("datm", "cifar10", 10): 66.8,
    ("mct", "cifar10", 1): 48.5,
    ("satm", "cifar10", 1): 49.0,
    ("satm", "cifar10", 10): 67.1,
    ("satm-fi", "cifar10", 1): 48.7,
    ("satm-fi", "cifar10", 10): 67.9,
}
# SATM, table 8: CIFAR-10 at 1 image a class, by 1 over the share of inner steps kept.
PUBLISHED_TRUNCATION = {6: 45.2, 5: 48.8, 4: 47.5, 3: 49.0, 2: 49.2}
# Passes over the set in the published evaluations.
PASSES = (
    {("dc", "cifar10"): 300, ("dc", "fashion-mnist"): 300}
    | {(method, data): 1000 for method in ("dc", "dsa", "dm") for data in ("mnist",)}
    | {(method, data): 1000 for method in ("dsa", "dm") for data in ("fashion-mnist", "cifar10")}
)
ACROSS = "mean and standard deviation over n networks (random: a new subset for each)"
NAMES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
FAMILY = ["bptt", "mtt", "ftd", "tesla", "datm", "mct", "satm", "satm-fi", "satm-da"]
ROWS = ["random", "dm", *FAMILY]
NOTHING = "No result file yet."


def main() -> None:
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        before = path.read_text(encoding="utf-8")
        after = re.sub(r"<!-- results:([\w-]+) -->.*?<!-- /results -->", section, before, flags=re.DOTALL)
        if after != before:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"Not as in benchmarks/results: {', '.join(stale)}; run python benchmarks/tables.py.")
    print("\n".join(stale) or "Nothing to change.")


def section(match: re.Match[str]) -> str:
    """One marked section with its table."""
    from tables_graphs import MAKERS as OF_GRAPHS
    from tables_hcdc import MAKERS as OF_HCDC
    from tables_kernels import MAKERS  # which takes from here what both need
    from tables_recommendation import MAKERS as OF_LOGS
    from tables_scale import MAKERS as OF_SCALE
    from tables_search import MAKERS as OF_SEARCH

    name = match[1]
    makers = {
        **MAKERS,
        **OF_LOGS,
        **OF_SEARCH,
        **OF_HCDC,
        **OF_SCALE,
        **OF_GRAPHS,
        "demo": demo,
        "coresets": coresets,
        "networks": networks,
        "experts": experts,
        "across": across,
    }
    makers |= {"trajectories": trajectories, "truncation": truncation, "waypoints": waypoints, "betas": betas}
    makers |= {"perturbations": perturbations, "ascents": ascents, "hypergradients": hypergradients}
    makers |= {"gradients": gradients}
    if name in makers:
        body = makers[name]()
    elif name in READY:
        body = ready_made(name)
    elif name in FAMILY:
        body = family(name)
    else:
        body = accuracy(None if name == "all" else name)
    return f"<!-- results:{name} -->\n\n{body}\n\n<!-- /results -->"


def load(folder: str) -> list[dict[str, Any]]:
    """The result files of a folder, by name."""
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted((RESULTS / folder).glob("*.json"))]


def accuracy(method: str | None) -> str:
    """The accuracy table of one method or of all."""
    found = [r for r in load("accuracy") if method in (None, r["options"]["method"])]
    if not found:
        return NOTHING
    first = found[0]
    lines = [
        "| data | images a class | method | steps, real batch | test accuracy, % | random subset, % | published, % | "
        "CPU seconds a step | CPU minutes in all |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [row(r) for r in sorted(found, key=order)]
    cpu, versions = first["hardware"], first["versions"]
    notes = (
        f"ConvNet-3 of width 128 with instance normalisation, the published evaluation, last iterate, mean and "
        f"standard deviation "
        f"of n networks on one set (random: a new subset for each); {cpu['processor']}, {cpu['threads']} thread "
        f"a run, PyTorch "
        f"{versions['torch']}; first-order passes compiled in bfloat16. Made by `benchmarks/accuracy.py`, files in "
        f"`benchmarks/results/accuracy/`."
    )
    shorter = sorted({r["evaluation"]["epochs"] for r in found if not published_length(r)})
    notes += "".join(f" *: trained for {epochs} passes in the evaluation instead of 1,000." for epochs in shorter)
    return "\n".join([*lines, "", notes])


def published_length(result: dict[str, Any]) -> bool:
    """Whether networks were trained on the set for as long as published."""
    o = result["options"]
    return bool(result["evaluation"]["epochs"] == PASSES[o["method"], o["dataset"]])


def order(result: dict[str, Any]) -> tuple[str, int, str, int]:
    """Data, size, method, seed."""
    o = result["options"]
    return o["dataset"], o["per_class"], o["method"], o["seed"]


def row(result: dict[str, Any]) -> str:
    """One line of the accuracy table."""
    o = result["options"]
    ours, random = (r["last"] for r in result["scores"]["rows"][:2])
    published = PUBLISHED.get((o["method"], o["dataset"], o["per_class"]))
    a_step = result["cpu_seconds_a_step"]
    cells = [
        NAMES[o["dataset"]],
        str(o["per_class"]),
        o["method"].upper(),
        f"{o['steps']:,}, {o['batch_real']}",
        score(ours) + ("" if published_length(result) else " *"),
        score(random),
        "" if published is None else f"{published}",
        f"{a_step:.2f}",
        f"{a_step * o['steps'] / 60:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def score(value: dict[str, Any]) -> str:
    """Mean, standard deviation (of more than one) and n."""
    spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
    return f"{100 * value['mean']:.1f}{spread} (n={value['n']})"


def demo() -> str:
    """What `make demo` prints."""
    rows = one("demo")["rows"]
    lines = [
        "| trained on | test accuracy, % | share of full data | images | seconds to make |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        made = "" if r["condensing_seconds"] is None else f"{r['condensing_seconds']:.1f}"
        share = f"{100 * r['recovery']:.1f} %"
        lines.append(f"| {r['name']} | {score(r['last'])} | {share} | {r['size']['images']:,} | {made} |")
    return "\n".join(lines)


def coresets() -> str:
    """Every method and coreset on the digits."""
    rows = one("digits")["rows"]
    lines = ["| images a class | trained on | test accuracy, % | trained by |", "|---|---|---|---|"]
    for r in rows:
        size = "all" if r["per_class"] is None else r["per_class"]
        lines.append(f"| {size} | {r['name']} | {score(r['last'])} | {r['recipe']} |")
    names = "dm,dc,dsa,herding,k-means,facility-location,k-center,forgetting,el2n,grand"
    note = (
        f"scikit-learn's digits, ConvNet-2 of width 32, one set of each, last pass; {ACROSS}. Made by "
        f"`condensery compare "
        f"digits --methods {names} --ipc 1,10 --n 5 --json`, kept in `benchmarks/results/digits.json`."
    )
    return "\n".join([*lines, "", note])


def networks() -> str:
    """A set of DM's under networks that it was not made with."""
    rows = one("digits-networks")["rows"]
    lines = ["| network | trained on | test accuracy, % | share of full data |", "|---|---|---|---|"]
    for r in rows:
        share = "" if r["recovery"] is None else f"{100 * r['recovery']:.1f} %"
        lines.append(f"| {r['network']} | {r['name']} | {score(r['last'])} | {share} |")
    note = (
        f"scikit-learn's digits, 1 image a class, the demo's DM set; {ACROSS}. Made by `condensery evaluate "
        f"runs/demo/dm --nets "
        "ConvNet,MLP,ConvNet:norm=batch --n 5 --checks 0 --json`, kept in `benchmarks/results/digits-networks.json`."
    )
    return "\n".join([*lines, "", note])


def one(name: str) -> dict[str, Any]:
    """A result file of its own."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def ready_made(name: str) -> str:
    """A table that its benchmark wrote into the result file."""
    path = RESULTS / f"{name}.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["table"]) if path.exists() else NOTHING


# --- trajectory matching ----------------------------------------------------------------------------------------------


def runs(method: str | None = None, *tags: str) -> list[dict[str, Any]]:
    """Condensed sets of `benchmarks/trajectories.py` that have no tag, or one that starts so; in the tables' order."""
    found = [r for r in load("trajectories") if "row" in r and "network" not in r]  # not experts, not `across`
    found = [r for r in found if method in (None, r["method"])]
    found = [r for r in found if not r["tag"] or r["tag"].startswith(tags)]
    return sorted(found, key=lambda r: (r["dataset"], r["per_class"], ROWS.index(r["method"]), r["tag"], r["seed"]))


def markdown(heads: list[str], rows: Iterable[list[str]]) -> str:
    """A table; nothing in it is said so."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]) if lines else NOTHING


def noted(table: str, found: list[dict[str, Any]], *more: str) -> str:
    """A table with what its rows have in common below it."""
    if table == NOTHING:
        return table
    return f"{table}\n\n{' '.join([*more, *conditions(found)])}"


def conditions(found: list[dict[str, Any]]) -> Iterator[str]:
    """Network, budget, experts and hardware, as the files say."""
    networks = sorted({r["row"]["network"] for r in found if "row" in r})
    if networks:
        yield f"{', '.join(networks)}; last iterate, {ACROSS}."
    budgets = {}
    for r in found:
        if "settings" in r and r["method"] in FAMILY:
            where = f"{NAMES[r['dataset']]} at {r['per_class']}"
            numbers = (r["steps"], r["settings"]["inner_steps"], r["evaluation"]["epochs"])
            budgets[where] = f"{where} ({', '.join(f'{n:,}' for n in numbers)})"
    if budgets:
        yield f"Steps, inner steps of each, passes of the evaluation: {'; '.join(budgets.values())}."
    kinds: dict[str, list[str]] = {}
    for r in found:
        if r.get("storage"):
            kinds.setdefault(f"{r['storage']['experts']} of {r['storage']['epochs']} epochs", []).append(title(r))
    if kinds:
        said = [f"{what} ({', '.join(dict.fromkeys(whose))})" for what, whose in kinds.items()]
        yield f"Experts: {'; '.join(said)}."
    r = found[0]
    threads = f"{r['threads']} thread{'s' * (r['threads'] > 1)} a run"
    where = f"{r['hardware']['processor']}, {threads}, PyTorch {r['versions']['torch']}"
    yield f"Experts and condensing at width {r['width']}; {where}."
    yield "Made by `benchmarks/trajectories.py`, files in `benchmarks/results/trajectories/`."


def title(r: dict[str, Any]) -> str:
    """The method's name."""
    return "random subset" if r["method"] == "random" else str(r["method"]).upper()


def varied(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of data and sizes of which there are runs with a tag."""
    tagged = {(r["dataset"], r["per_class"]) for r in found if r["tag"]}
    return [r for r in found if (r["dataset"], r["per_class"]) in tagged]


def place(r: dict[str, Any]) -> list[str]:
    """Data and size."""
    return [NAMES[r["dataset"]], str(r["per_class"])]


def named(r: dict[str, Any]) -> str:
    """The method's name, with the seed where it is not the first one."""
    return title(r) + (f", seed {r['seed']}" if r.get("seed") else "")


def reached(r: dict[str, Any]) -> str:
    """Test accuracy."""
    return score(r["row"]["last"])


def cost(r: dict[str, Any]) -> str:
    """CPU seconds of a step."""
    return f"{r['cpu_seconds_a_step']:.2f}" if r.get("cpu_seconds_a_step") else ""


def mib(size: float) -> str:
    """Bytes as MiB."""
    return f"{size / 2**20:.1f}"


def trajectories() -> str:
    """Every method at the same network, experts and number of steps."""
    found = runs()
    heads = ["data", "images a class", "method", "test accuracy, %", "CPU seconds a step", "steps", "CPU minutes"]
    rows = []
    for r in found:
        made = "steps" in r
        whole = (
            [f"{r['steps']:,}", f"{r['cpu_seconds_a_step'] * r['steps'] / 60:.0f}" if r["cpu_seconds_a_step"] else ""]
            if made
            else ["", ""]
        )
        peak = f"{r['peak_memory_mb']:.0f}" if made else ""
        stored = mib(r["storage"]["bytes"]) if r.get("storage") else ""
        rows.append([*place(r), named(r), reached(r), cost(r), *whole, peak, stored])
    return noted(markdown([*heads, "peak MB", "experts, MiB on disk"], rows), found)


def family(method: str) -> str:
    """One method beside random images, and the published numbers."""
    mine = runs(method)
    sizes = {(r["dataset"], r["per_class"]) for r in mine}
    found = [r for r in runs() if r["method"] in ("random", method) and (r["dataset"], r["per_class"]) in sizes]
    heads = [
        "data",
        "images a class",
        "trained on",
        "test accuracy, %",
        "published, width 128, %",
        "CPU seconds a step",
    ]
    rows = []
    for r in found:
        known = PUBLISHED.get((r["method"], r["dataset"], r["per_class"]))
        rows.append([*place(r), named(r), reached(r), "" if known is None else f"{known}", cost(r)])
    warning = (
        "Published numbers are of width 128, 100 experts and thousands of steps: they say what the method can reach, "
        "and are not comparable with ours."
    )
    return noted(markdown(heads, rows), found, *([warning] if any(row[4] for row in rows) else []))


def truncation() -> str:
    """SATM by the share of inner steps that carry the gradient."""
    found = varied(runs("satm", "keep-"))
    found.sort(key=lambda r: (r["dataset"], r["per_class"], r["outer"]["keep"], r["tag"]))
    heads = ["data", "images a class", "share kept", "steps kept", "test accuracy, %", "CPU seconds a step", "peak MB"]
    rows = []
    for r in found:
        k, steps = round(1 / r["outer"]["keep"]), r["outer"]["inner_steps"]
        kept = f"{max(1, int(steps * r['outer']['keep'] + 1e-9))} of {steps}"
        known = PUBLISHED_TRUNCATION.get(k) if (r["dataset"], r["per_class"]) == ("cifar10", 1) else None
        share = "all" if k == 1 else f"1/{k}"
        cells = [share, kept, reached(r), cost(r), f"{r['peak_memory_mb']:.0f}", "" if known is None else f"{known}"]
        rows.append([*place(r), *cells])
    said = "Published: table 8, width 128, 10,000 steps; not comparable but for its trend."
    return noted(markdown([*heads, "published, %"], rows), found, said)


def interior(r: dict[str, Any]) -> int:
    """MCT's waypoints between the ends."""
    return int(r["tag"].removeprefix("interior-")) if r["tag"].startswith("interior-") else 2


def waypoints() -> str:
    """MCT by the number of waypoints."""
    found = sorted(varied(runs("mct", "interior-")), key=lambda r: (r["dataset"], r["per_class"], interior(r)))
    heads = [
        "data",
        "images a class",
        "waypoints between the ends",
        "test accuracy, %",
        "experts, MiB",
        "times smaller",
    ]
    rows = []
    for r in found:
        s = r["storage"]
        smaller = f"{s['full_bytes'] / s['bytes']:.1f}"
        rows.append([*place(r), str(interior(r)), reached(r), mib(s["bytes"]), smaller])
    return noted(markdown(heads, rows), found)


def betas() -> str:
    """MCT by the rule of beta."""
    found = varied(runs("mct", "beta-"))
    rows = [[*place(r), r["tag"].removeprefix("beta-") or "mct", reached(r)] for r in found]
    return noted(markdown(["data", "images a class", "rule", "test accuracy, %"], rows), found)


def climbed(*tags: str) -> str:
    """SATM by its perturbation, with MTT for comparison."""
    found = varied([r for method in ("mtt", "satm") for r in runs(method, *tags)])
    heads = ["data", "images a class", "method", "ascent", "rho", "gamma", "test accuracy, %", "CPU seconds a step"]
    rows = []
    for r in found:
        o = r["outer"] if r["method"] == "satm" else {}
        cells = [str(o.get(name, "")) for name in ("ascent", "rho", "gamma")]
        rows.append([*place(r), named(r), *cells, reached(r), cost(r)])
    return noted(markdown(heads, sorted(rows, key=lambda row: row[:3])), found)


def perturbations() -> str:
    """SATM by rho and gamma."""
    return climbed("rho-", "gamma-")


def ascents() -> str:
    """SATM by the kind of ascent."""
    return climbed("ascent-")


def hypergradients() -> str:
    """Size and spread of the outer gradient, and the sharpness at the beginning and the end of a run."""
    found = [r for method in FAMILY for r in runs(method) if r.get("figures", {}).get("hypergradient")]
    if not any(r["method"] == "satm" for r in found):
        return NOTHING
    found.sort(key=lambda r: (r["dataset"], r["per_class"], ROWS.index(r["method"]), r["seed"]))
    heads = ["data", "images a class", "method", "norm of the gradient", "largest over median"]
    rows = []
    for r in found:
        norms, sharpness = r["figures"]["hypergradient"], r["figures"].get("sharpness")
        spread = f"{statistics.mean(norms):.4f} ± {statistics.pstdev(norms):.4f}"
        middle = statistics.median(norms)
        spike = f"{max(norms) / middle:.1f}" if middle else ""
        fifth = max(1, len(norms) // 5)
        ends = [f"{statistics.mean(part):.4f}" for part in (sharpness[:fifth], sharpness[-fifth:])] if sharpness else []
        rows.append([*place(r), named(r), spread, spike, *(ends or ["", ""])])
    said = (
        "Norm of the gradient that moves the images, mean and standard deviation over the steps of a run; SATM's is of "
        "the kept inner steps. Sharpness as on this page, mean over the first and the last fifth of the steps."
    )
    return noted(markdown([*heads, "sharpness at first", "at last"], rows), found, said)


def gradients() -> str:
    """Cheaper gradients beside the exact one."""
    files = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(RESULTS.glob("gradients-*.json"))]
    rows = []
    for f in files:
        for r in f["rows"]:
            numbers = [str(r["inner_steps"]), f"{r['step_size']:.3g}", f"{r['cosine']:.3f}", f"{r['norm']:.2f}"]
            rows.append([NAMES[f["dataset"]], *numbers[:2], r["form"], *numbers[2:]])
    table = markdown(["data", "inner steps", "step size", "gradient", "cosine", "norm, of the exact one's"], rows)
    if table == NOTHING:
        return table
    f = files[0]
    said = (
        f"1 real image a class; means over {f['segments']} segments of experts, the same augmentation for each; "
        f"ConvNet-3 of width {f['width']}, {f['hardware']['processor']}, PyTorch {f['versions']['torch']}. Made by "
        "`benchmarks/gradients.py`."
    )
    return f"{table}\n\n{said}"


def experts() -> str:
    """What experts take: bytes on disk and time."""
    stores = [r for r in load("trajectories") if "cpu_seconds_an_epoch" in r]
    heads = ["data", "experts", "stored", "MiB on disk", "share", "CPU seconds an epoch", "validation accuracy, %"]
    rows = []
    for r in stores:
        dataset, _, kind = r["name"].rpartition("-")
        made = f"{r['experts']} of {r['epochs']} epochs, {kind.upper()}"
        accuracy = f"{100 * statistics.mean(r['accuracy']):.1f}"
        seconds = "" if r["cpu_seconds_an_epoch"] is None else f"{r['cpu_seconds_an_epoch']:.0f}"
        rows.append([NAMES[dataset], made, "every point", mib(r["bytes"]), "1", seconds, accuracy])
    seen = set()
    for r in runs("mct", "interior-"):
        key, s = (r["dataset"], interior(r)), r["storage"]
        if key not in seen:
            seen.add(key)
            stored, share = f"{interior(r) + 2} waypoints", f"1/{s['full_bytes'] / s['bytes']:.1f}"
            made = f"{s['experts']} of {s['epochs']} epochs"
            rows.append([NAMES[r["dataset"]], made, stored, mib(s["bytes"]), share, "", ""])
    rows.sort(key=lambda row: row[0])
    said = "Accuracy is the mean of the experts' last points on the validation split."
    return noted(markdown(heads, rows), stores or runs("mct", "interior-"), said)


def across() -> str:
    """The same sets under networks that they were not made with."""
    found = [r for r in load("trajectories") if "network" in r]
    found.sort(key=lambda r: (r["dataset"], r["per_class"], ROWS.index(r["method"])))
    networks = list(dict.fromkeys(r["network"] for r in found))
    table: dict[tuple[str, ...], dict[str, str]] = {}
    for r in found:
        table.setdefault((*place(r), title(r)), {})[r["network"]] = reached(r)
    heads = ["data", "images a class", "trained on", *networks]
    rows = [[*key, *(cells.get(network, "") for network in networks)] for key, cells in table.items()]
    passes = sorted({r["evaluation"]["epochs"] for r in found})
    said = f"Test accuracy in per cent after {', '.join(f'{p:,}' for p in passes)} passes over the set."
    return noted(markdown(heads, rows), found, said)


if __name__ == "__main__":
    main()
