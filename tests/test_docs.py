"""The documentation is true: its code runs, its links lead somewhere, every method has all that it needs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import condensery
from condensery import catalog, coresets, methods

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=lambda path: path.relative_to(ROOT).as_posix())
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
METHODS = sorted(name for domain in catalog.DOMAINS.values() for name in domain.methods)


def navigation() -> list[str]:
    """Pages in the navigation, in order."""

    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for item in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from pages(item)

    return list(pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))


def briefly(code: str) -> str:
    """The code with fewer steps and epochs."""
    return re.sub(r"\b(steps|epochs)=(\d+)", lambda m: f"{m[1]}={min(3, int(m[2]))}", code)


def commands(name: str) -> list[str]:
    """The ``condensery`` lines of a page's shell blocks."""
    blocks = SHELL.findall((ROOT / name).read_text())
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("condensery ")]


@pytest.mark.parametrize(
    "name", [name for name, path in zip(NAMES, PAGES, strict=True) if BLOCK.search(path.read_text())]
)
def test_its_code_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, one after the other, in one namespace and an empty folder."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / name).read_text()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCK.finditer(page):
        before = page[: block.start(1)].count("\n")
        exec(compile("\n" * before + briefly(block[1]), name, "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("name", [name for name in NAMES if commands(name)])
def test_its_commands_are_understood(name: str) -> None:
    """Every ``condensery ...`` line is parsed, not run: its command and options exist."""
    import typer

    from condensery.cli import app

    group: Any = typer.main.get_command(app)
    for line in commands(name):
        command, *arguments = shlex.split(line, comments=True)[1:]
        if command == "--help" or arguments == ["--help"]:
            continue
        assert command in group.commands, line
        group.commands[command].make_context(command, arguments)


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.is_file(), f"{name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name} links to {target}"


def anchors(page: Path) -> set[str]:
    """What can be linked to in a page."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_every_page_is_in_the_navigation_once() -> None:
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(navigation()) == sorted(pages)


def test_every_method_is_in_the_catalog() -> None:
    """A class with an optimizer for what is learned is a method; the others of the package are parts of one."""
    there = {name for name in methods.__all__ if hasattr(getattr(methods, name), "optimizer")}
    entries = (entry for domain in catalog.DOMAINS.values() for entry in domain.methods.values())
    assert there == {entry.home.partition(":")[2] for entry in entries}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_page_recipe_catalog_entry_and_changelog_line(name: str) -> None:
    assert f"methods/{name}.md" in navigation()
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    for part in (
        "## From equation to line",
        "## Deviations from the paper",
        "## Deviations from the authors' code",
        "## Results",
    ):
        assert part in page, f"docs/methods/{name}.md has no part {part!r}"
    assert (Path(condensery.__file__).parent / "recipes" / f"{name}.toml").is_file()
    assert re.search(rf"\b{name}\b", (ROOT / "CHANGELOG.md").read_text(), re.IGNORECASE)
    assert f"docs/methods/{name}.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", METHODS)
def test_a_page_names_functions_that_exist(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    table = page.split("## From equation to line")[1].split("##")[0]
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for term in re.findall(r"`([A-Za-z_.]+)(?:\(\))?`", table):
        assert all(re.search(rf"\b{part}\b", source) for part in term.split(".") if part != "toml"), term


def test_every_coreset_is_described() -> None:
    page = (ROOT / "docs" / "methods" / "coresets.md").read_text()
    for entry in catalog.CORESETS.values():
        assert f"`{entry.load().__name__}`" in page
    assert all(hasattr(coresets, name) for name in coresets.__all__)
    page = (ROOT / "docs" / "recommendation.md").read_text()
    for entry in catalog.LOG_CORESETS.values():
        assert f"`{entry.load().__name__}`" in page
    page = (ROOT / "docs" / "graphs.md").read_text()
    for name, entry in catalog.GRAPH_CORESETS.items():
        assert f"`{entry.load().__name__}`" in page
        assert f"`{name}`" in page


def test_the_map_names_every_module() -> None:
    """The tree in the README has a line for each module, and for no other."""
    tree = (ROOT / "README.md").read_text().split("src/condensery/\n")[1].split("tests/")[0]
    named = set(re.findall(r"^  (\S+)", tree, re.MULTILINE))
    package = ROOT / "src" / "condensery"
    there = {f"{p.name}/" for p in package.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert named == there | {p.name for p in package.glob("*.py")}


def test_its_tables_are_the_result_files() -> None:
    tables = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert tables.returncode == 0, tables.stderr


def test_the_version_is_said_once_and_the_changelog_has_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == condensery.__version__
    assert f"## {condensery.__version__}" in (ROOT / "CHANGELOG.md").read_text()
