"""The command line as a user meets it: every command, what it prints, and errors in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import condensery
from commands import call, complaint
from condensery import demo, runs
from condensery.artifact import Artifact
from condensery.cli import compare, condense, console
from condensery.journal import read

pytestmark = pytest.mark.usefixtures("elsewhere")

TINY = ["--set", "net.width=4", "--set", "batch_real=8", "--set", "eval.epochs=3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run."""
    folder = tmp_path_factory.mktemp("made") / "run"
    call("condense", "digits", *TINY, "--set", "steps=3", "--out", folder)
    return folder


def test_the_first_screen_lists_every_command() -> None:
    text = call("--help").out
    for command in (
        "demo",
        "experts",
        "convexify",
        "condense",
        "select",
        "evaluate",
        "compare",
        "search",
        "info",
        "show",
        "export",
        "methods",
        "datasets",
    ):
        assert command in text
        assert "Usage" in call(command, "--help").out
    assert call("--version").out.startswith("condensery 0.")


def test_condense_leaves_everything_in_its_folder(tmp_path: Path) -> None:
    done = call("condense", "digits", "--method", "DSA", "--ipc", 1, *TINY, "--set", "steps=40", "--budget", 0.1)
    folder = tmp_path / "runs" / "digits-dsa-ipc1-seed0"
    names = {"artifact.safetensors", "log.jsonl", "picture.png", "run.json", "snapshots"}
    assert {p.name for p in folder.iterdir()} == names
    assert "DSA on digits: 10 images" in done.out
    assert "condensery evaluate runs/digits-dsa-ipc1-seed0" in done.out
    assert "budget 0.1: 40 -> 4 steps" in done.err
    assert "settings of this library for digits" in done.err
    assert [e.step for e in read(folder / "log.jsonl")] == [1, 2, 3, 4]
    with Image.open(folder / "picture.png") as picture:
        assert min(picture.size) > 50


def test_json_goes_alone_to_standard_output(tmp_path: Path) -> None:
    done = call("condense", "digits", *TINY, "--set", "steps=2", "--ipc", "1,1,1,1,1,1,1,1,1,2", "--json")
    plain = json.loads(done.out)
    assert plain["per_class"] == [1] * 9 + [2]
    assert Artifact.load(plain["artifact"]).provenance["steps"] == 2


def test_a_finished_run_is_resumed_by_doing_nothing(made: Path) -> None:
    before = (made / "artifact.safetensors").read_bytes()
    done = call("condense", "digits", *TINY, "--set", "steps=3", "--out", made, "--resume")
    assert "finished already" in done.err
    assert (made / "artifact.safetensors").read_bytes() == before


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = call("condense", "digits", *TINY, "--set", "steps=6", "--out", tmp_path / "whole", "--json").out

    def stopped(*arguments: object) -> object:
        for progress in advance(*arguments):  # type: ignore[arg-type]
            if progress.step == 4:
                raise KeyboardInterrupt
            yield progress

    advance = runs.advance
    command = ["condense", "digits", *TINY, "--set", "steps=6", "--out", "b", "--snapshot-every", "2"]
    monkeypatch.setattr(sys, "argv", ["condensery", *command])
    monkeypatch.setattr(runs, "advance", stopped)
    said = call(*command, code=130).err
    assert "stopped: go on with: condensery condense digits --set net.width=4" in said
    assert "--out b --snapshot-every 2 --resume" in said
    monkeypatch.setattr(runs, "advance", advance)
    call(*command, "--resume")
    found, expected = (Artifact.load(path) for path in ("b/artifact.safetensors", json.loads(whole)["artifact"]))
    assert torch.equal(found.images.values, expected.images.values)


def test_the_network_and_the_whitening_are_chosen_by_options() -> None:
    call(
        "condense",
        "digits",
        *TINY[2:],
        "--set",
        "steps=1",
        "--net",
        "mlp",
        "--width",
        8,
        "--whiten",
        "zca",
        "--out",
        "a",
    )
    artifact = Artifact.load("a/artifact.safetensors")
    assert (artifact.network["net"], artifact.network["width"]) == ("MLP", 8)
    assert artifact.preprocessing.config()["kind"] == "whiten"
    call("condense", "digits", *TINY, "--set", "steps=1", "--norm", "batch", "--eval-every", 1, "--out", "b")
    assert Artifact.load("b/artifact.safetensors").network["norm"] == "batch"
    assert "validation" in Path("b/log.jsonl").read_text()


def test_tensorboard_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = complaint("condense", "digits", *TINY, "--set", "steps=1", "--tensorboard")
    assert "pip install 'condensery[report]'" in said


def test_evaluate_puts_honest_baselines_beside_the_set(made: Path) -> None:
    command = [
        "evaluate",
        made,
        "--n",
        2,
        "--checks",
        2,
        "--robust",
        "--full-epochs",
        1,
        "--nets",
        "ConvNet,MLP:width=8",
    ]
    done = call(*command)
    for words in (
        "DM, no augmentation",
        "random subset",
        "full data",
        "pass chosen",
        "MLP (depth 2, width 8)",
        "(n=2)",
    ):
        assert words in done.out
    assert "full data: 2 x ConvNet for 1 passes over 1256 images" in done.err
    plain = json.loads(call(*command, "--json").out)
    assert [row["name"] for row in plain["rows"][:4]] == ["DM", "DM, no augmentation", "random subset", "full data"]
    assert plain["rows"][0]["last"]["n"] == 2
    assert plain["rows"][3]["recovery"] == 1.0
    assert "from the cache" in call(*command).err


def test_evaluate_without_the_dear_row_and_saved(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((made / "artifact.safetensors").read_bytes())
    done = call("evaluate", copy, "--n", 1, "--no-full", "--save", "--epochs", 4, "--eval-budget", 0.5)
    assert "full data" not in done.out.replace("share of", "").replace("full data ", "", 1)
    assert "evaluation budget 0.5: 4 -> 2 passes" in done.err
    assert "Scores in the file" in call("info", copy).out
    assert Artifact.load(copy).recipe.epochs == 3, "what was asked for once is not the set's recipe"


def test_compare_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["compare", "digits", "--methods", "dm,herding,dsa", "--ipc", "1,2", "--n", 2, "--full-epochs", 1]
    command += ["--set", "net.width=4", "--set", "steps=2", "--set", "eval.epochs=3", "--set", "outer=1"]
    into = condense.condense_into

    def stopped(folder: runs.Folder, *arguments: object, **more: object) -> object:
        if folder.path.name == "dsa-ipc2":
            raise console.Interrupted("")
        return into(folder, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "condense_into", stopped)
    assert "finished cells are kept in runs/compare-digits-seed0" in call(*command, code=130).err
    monkeypatch.setattr(compare, "condense_into", into)
    done = call(*command)
    assert done.err.count("found finished") == 5
    assert all(name in done.out for name in ("DM", "Herding", "DSA", "random subset", "full data"))
    again = call(*command, "--json")
    assert again.err.count("found finished") == 6
    rows = json.loads(again.out)["rows"]
    assert [row["per_class"] for row in rows] == [1, 1, 1, 1, 2, 2, 2, 2, None]
    assert "made with other settings" in complaint(*command, "--set", "momentum=0.1")
    assert "no setting 'foo'" in complaint(*command, "--set", "foo=1")


def test_select_writes_a_set_of_real_images() -> None:
    call("select", "digits", "--coreset", "k-means", "--ipc", 2, "--embedding", "random-net", "--set", "net.width=4")
    artifact = Artifact.load("runs/digits-k-means-ipc2-seed0/artifact.safetensors")
    assert artifact.indices is not None
    assert artifact.options["embedding"] == "random-net"
    assert "holds a set already" in complaint("select", "digits", "--coreset", "k-means", "--ipc", 2)
    assert "training images" in call("info", "runs/digits-k-means-ipc2-seed0").out


def test_info_says_everything(made: Path) -> None:
    text = call("info", made).out
    for words in (
        "DM, seed 0",
        "1 for each of 10 classes",
        "standardise",
        "ConvNet",
        "3 passes",
        "batch_real 8",
        "torch",
    ):
        assert words in text
    plain = json.loads(call("info", made / "artifact.safetensors", "--json").out)
    assert plain["options"]["batch_real"] == 8
    assert plain["spent"]["images"] == 10


def test_show_and_export(made: Path) -> None:
    call("show", made, "--out", "pictures/x.png")
    with Image.open("pictures/x.png") as picture:
        assert picture.mode == "RGB"
    assert "10 images" in call("export", made, "--to", "npz", "--out", "x.npz").out
    with np.load("x.npz", allow_pickle=False) as arrays:
        assert torch.equal(torch.from_numpy(arrays["x"]), Artifact.load(made / "artifact.safetensors").images.values)
    call("export", made, "--to", "png", "--out", "folders")
    assert len(list(Path("folders").glob("*/*.png"))) == 10
    assert "exists already" in complaint("export", made, "--to", "npz", "--out", "x.npz")
    assert "not a .png" in complaint("show", made, "--out", "x.jpg")


@pytest.mark.parametrize(("to", "name"), [("parquet", "x.parquet"), ("hub", "x")])
def test_export_to_the_hub_formats(to: str, name: str, made: Path) -> None:
    pytest.importorskip("datasets")
    program("export", made, "--to", to, "--out", name)
    assert Path(name).exists()


def test_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = call("methods").out
    assert all(words in text for words in ("dm", "facility-location", "Zhao & Bilen", "arxiv.org"))
    assert {m["name"] for m in json.loads(call("methods", "--json").out)["methods"]} >= {"dc", "dsa", "dm"}
    text = call("methods", "dsa").out
    assert all(words in text for words in ("lr_images", "0.1", "dsa, dsa-digits or none", "eval.augment", "net.depth"))
    assert "experts." not in text
    text = call("methods", "satm").out
    shown = (
        "the experts",
        "experts.optimizer",
        "sgd, sam, gsam or asam",
        "sam, gsam, asam or vasso",
        "0.3333333333333333",
    )
    assert all(words in text for words in shown)
    settings = json.loads(call("methods", "herding", "--json").out)["settings"]
    assert {"name": "embedding", "default": "pixels", "takes": "pixels, random-net or trained-net"} in settings
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (tmp_path / "data" / "mnist" / f"{part}-{kind}-ubyte").touch()
    monkeypatch.setenv("CONDENSERY_DATA", str(tmp_path / "data"))
    here = {d["name"]: d["here"] for d in json.loads(call("datasets", "--json").out)}
    assert here["mnist"] == str(tmp_path / "data" / "mnist")
    assert here["cifar10"] is None
    assert "comes with scikit-learn" in call("datasets").out


def test_your_own_pictures_and_arrays(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(g.integers(0, 255, (20, 24, 3), np.uint8)).save(tmp_path / "pets" / name / f"{i}.png")
    small = ["--set", "net.width=4", "--set", "steps=1", "--set", "eval.epochs=2"]
    call("condense", "pets", "--size", 16, *small)
    artifact = Artifact.load("runs/pets-dm-ipc1-seed0/artifact.safetensors")
    assert (artifact.classes, tuple(artifact.images.values.shape)) == (("cat", "dog"), (2, 3, 16, 16))
    call("evaluate", "runs/pets-dm-ipc1-seed0", "--n", 1, "--full-epochs", 1)
    call("evaluate", "runs/pets-dm-ipc1-seed0", "--n", 1, "--no-full", "--data", "pets")
    np.savez("mine.npz", x=g.integers(0, 255, (30, 8, 8), np.uint8), y=np.arange(30) % 3)
    call("condense", "mine.npz", *small)
    assert "keep their size" in complaint("condense", "mine.npz", "--size", 8)
    Path("notes.txt").write_text("x")
    assert "is not data" in complaint("condense", "notes.txt")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("condense nosuch", "There is no data set or path 'nosuch'"),
        ("condense cifar-10", "did you mean cifar10?"),
        ("condense mnist --data-root .", "put train-images-idx3-ubyte"),
        ("condense digits --method foo", "There is no method 'foo'; choose from dm, dc, dsa"),
        ("condense digits --method herding", "use: condensery select DATA --coreset herding"),
        ("condense digits --ipc x", "--ipc takes a whole number"),
        ("condense digits --ipc 0", "give at least 1"),
        ("condense digits --ipc 1,2", "2 counts were given for 10 classes"),
        ("condense digits --ipc 5000", "5000 are needed"),
        ("condense digits --set learning_rate=3", "it takes batch_real, augment, lr_images"),
        ("condense digits --set batch_real=many", "batch_real takes a whole number"),
        ("condense digits --set net.depth=9", "use a smaller depth"),
        ("condense digits --budget 0", "positive"),
        ("condense digits --size 8", "leave the size out"),
        ("condense digits --validation 2", "between 0 and 1"),
        ("condense digits --net Foo", "There is no network 'Foo'"),
        ("condense digits --set lr_images=1e38 --set batch_real=4 --set steps=9", "lower the learning rate"),
        ("select digits --coreset dm", "There is no coreset 'dm'"),
        ("select digits --embedding pixel", "embedding takes pixels"),
        ("evaluate nofile", "There is no file nofile"),
        ("info .", "There is no file"),
        ("compare digits --methods dm,foo", "There is no method 'foo'"),
        ("compare digits --ipc a", "--ipc takes whole numbers"),
        ("methods foo", "There is no method 'foo'"),
    ],
)
def test_an_error_is_one_sentence(arguments: str, sentence: str) -> None:
    assert sentence in complaint(*arguments.split())


@pytest.mark.parametrize(
    ("nets", "sentence"),
    [("Foo", "no network"), ("MLP:foo=1", "no argument 'foo'"), ("MLP:width=x", "width takes a whole number")],
)
def test_a_bad_network_is_one_sentence(nets: str, sentence: str, made: Path) -> None:
    assert sentence in complaint("evaluate", made, "--nets", nets, "--no-full")


def test_a_bug_is_not_hidden(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("condensery.pictures.save_grid", broken)
    with pytest.raises(ZeroDivisionError):
        call("show", made)


def test_the_demonstration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = demo.recipes.load
    small = [*TINY[1::2], "steps=2"]

    def quick(name: str, *arguments: object) -> object:
        return load(name, *arguments, overrides=small if name != "herding" else [TINY[1], TINY[5]])  # type: ignore[arg-type]

    monkeypatch.setattr(demo.recipes, "load", quick)
    of_graph = demo.for_graphs.load
    tiny = ["steps=2", "eval.steps=4", "eval.check_every=2", "test.width=4"]
    monkeypatch.setattr(demo.for_graphs, "load", lambda *a, **k: of_graph(*a, **k, overrides=tiny))
    monkeypatch.setattr(demo, "NETWORKS", 2)
    done = call("demo", "--out", "d")
    for words in (
        "random subset",
        "Herding",
        "DM",
        "DSA",
        "full data",
        "(n=2)",
        "d/picture.png",
        "time to make",
        "full graph",
        "condensery show d/gcond",
        "Everything took",
    ):
        assert words in done.out
    assert Path("d/dm/artifact.safetensors").is_file()
    plain = json.loads(call("demo", "--out", "d", "--json").out)
    assert [row["name"] for row in plain["rows"]] == ["random subset", "Herding", "DM", "DSA", "full data"]
    assert [(row["name"], row["size"]["nodes"]) for row in plain["graph"]["rows"]] == [
        ("random", 20),
        ("GCond", 20),
        ("full graph", 200),
    ]
    assert Path(plain["graph"]["artifact"]).is_file()


def program(*arguments: object, code: str = "", expected: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the program, or other code, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(condensery.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code or "from condensery.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == expected, done.stderr
    return done


def test_help_answers_at_once_without_torch() -> None:
    code = (
        "import sys, time\nfrom condensery.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'PIL', 'scipy', 'joblib', 'pooch'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert time.process_time() < 1, time.process_time()"
    )
    for arguments in (["--help"], ["condense", "--help"], ["methods"]):
        program(*arguments, code=code)


def test_the_program_ends_with_the_right_codes(tmp_path: Path) -> None:
    done = program("info", "nothing", expected=2)
    assert done.stdout == ""
    assert done.stderr == "error: There is no file nothing; check the path.\n"
