"""Write the tables of the documentation from the result files: no number there that is not in benchmarks/results/.

python benchmarks/tables.py            # writes what lies between <!-- results:NAME --> and <!-- /results -->
python benchmarks/tables.py --check    # fails if that would change a file
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Test accuracy in per cent. DC and DSA: readme of VICO-UoE/DatasetCondensation. DM: Zhao & Bilen 2023, table 1
# (CIFAR-10 as the SATM paper quotes it too).
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
}
# Passes over the set in the published evaluations.
PASSES = (
    {("dc", "cifar10"): 300, ("dc", "fashion-mnist"): 300}
    | {(method, data): 1000 for method in ("dc", "dsa", "dm") for data in ("mnist",)}
    | {(method, data): 1000 for method in ("dsa", "dm") for data in ("fashion-mnist", "cifar10")}
)
ACROSS = "mean and standard deviation over n networks (random: a new subset for each)"
NAMES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}


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
    name = match[1]
    makers = {"speed": speed, "pieces": pieces, "demo": demo, "coresets": coresets, "networks": networks}
    maker = makers.get(name)
    body = maker() if maker else accuracy(None if name == "all" else name)
    return f"<!-- results:{name} -->\n\n{body}\n\n<!-- /results -->"


def load(folder: str) -> list[dict[str, Any]]:
    """The result files of a folder, by name."""
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted((RESULTS / folder).glob("*.json"))]


def accuracy(method: str | None) -> str:
    """The accuracy table of one method or of all."""
    found = [r for r in load("accuracy") if method in (None, r["options"]["method"])]
    if not found:
        return "No result file yet."
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
    """Mean, standard deviation and n."""
    return f"{100 * value['mean']:.1f} ± {100 * value['std']:.1f} (n={value['n']})"


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


def speed() -> str:
    """Ours against the authors' code."""
    path = RESULTS / "speed.json"
    if not path.exists():
        return "No result file yet."
    return str(json.loads(path.read_text(encoding="utf-8"))["table"])


def pieces() -> str:
    """Micro-benchmarks."""
    path = RESULTS / "pieces.json"
    if not path.exists():
        return "No result file yet."
    return str(json.loads(path.read_text(encoding="utf-8"))["table"])


if __name__ == "__main__":
    main()
