"""The one file: everything comes back, nothing is executed, damage is one sentence, old files load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensery import nets
from condensery.artifact import KIND, VERSION, Artifact
from condensery.configs import from_config, to_config
from condensery.data.augment import CLASSES, DcTrain, DsaTrain, OneOfPerImage, Siamese
from condensery.data.whitening import Standardise, zca_absolute
from condensery.fitting import Adam, Recipe, SquaredError, WarmupCosine
from condensery.store import DamagedFile, load_tree, save_tree
from condensery.synthetic import Images, MultiFormation
from support import blobs, generator, tiny_images

FIXTURE = Path(__file__).parent / "fixtures" / "artifact-version-1.safetensors"
NETWORK = nets.describe(nets.ConvNet(channels=1, classes=3, size=8, width=4))


def make(images: Images | None = None, **changes: Any) -> Artifact:
    data = blobs()
    values: dict[str, Any] = {
        "images": images or tiny_images(data, [1, 3, 2]),
        "classes": data.classes,
        "preprocessing": Standardise((0.2,), (0.5,)),
        "recipe": Recipe(epochs=7, augment=DsaTrain(Siamese.digits())),
        "network": NETWORK,
        "dataset": "blobs",
        "method": "dm",
        "options": {"lr_images": 1.0, "augment": None, "kind": "x"},
        "seed": 3,
        "split": {"validation": 0.1, "seed": 0},
        "scores": {"n": 5},
        "provenance": {"seconds": 1.5},
    }
    return Artifact(**{**values, **changes})


VARIANTS: dict[str, Any] = {
    "plain": make,
    "learned": lambda: make(
        tiny_images(blobs(), 2, labels=torch.rand(6, 3), learn_labels=True, logits=True, step_size=0.25, mirrored=True)
    ),
    "formed": lambda: make(tiny_images(blobs(), 1, formation=MultiFormation(2), labels=torch.rand(12, 3))),
    "whitened": lambda: make(preprocessing=zca_absolute(torch.rand(30, 1, 8, 8, generator=generator()))),
    "coreset": lambda: make(indices=torch.arange(6), method="herding"),
    "other recipe": lambda: make(
        recipe=Recipe(
            steps=9, optimizer=Adam(), loss=SquaredError(), schedule=WarmupCosine(), augment=OneOfPerImage.rcig()
        )
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_everything_comes_back(name: str, tmp_path: Path) -> None:
    before = VARIANTS[name]()
    before.save(tmp_path / "a.safetensors")
    after = Artifact.load(tmp_path / "a.safetensors")
    for a, b in zip(before.batch(), after.batch(), strict=True):
        assert torch.equal(a, b)
    assert after.images.kind_of_labels == before.images.kind_of_labels
    assert after.recipe == before.recipe
    assert torch.equal(after.pictures, before.pictures)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(after.preprocessing(x), before.preprocessing(x))
    for field in (
        "classes",
        "network",
        "dataset",
        "method",
        "options",
        "seed",
        "split",
        "scores",
        "versions",
        "provenance",
    ):
        assert getattr(after, field) == getattr(before, field), field
    assert (after.indices is None) == (before.indices is None)
    assert after.spent == before.spent
    assert after.per_class == before.per_class


def test_the_learned_step_size_trains() -> None:
    assert VARIANTS["learned"]().training_recipe().optimizer.lr == 0.25
    assert make().training_recipe() == make().recipe


def test_hard_labels_replace_learned_ones() -> None:
    artifact = VARIANTS["learned"]()
    assert artifact.batch().y.shape == (12, 3)
    assert artifact.batch(hard_labels=True).y.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_batch_carries_no_gradient() -> None:
    assert not make().batch().x.requires_grad


def test_pictures_are_pixels() -> None:
    data = blobs()
    pixels = torch.rand(3, 1, 8, 8, generator=generator())
    prepare = Standardise((0.2,), (0.5,))
    artifact = make(Images(prepare(pixels), torch.arange(3)), preprocessing=prepare, classes=data.classes)
    assert torch.allclose(artifact.pictures, pixels, atol=1e-6)


def test_the_network_is_rebuilt() -> None:
    assert nets.describe(make().build_network()) == NETWORK


def test_the_first_releases_file_loads() -> None:
    artifact = Artifact.load(FIXTURE)
    assert artifact.method == "dm"
    assert artifact.images.kind_of_labels == "learned"
    assert artifact.batch().x.shape == (24, 1, 8, 8)
    assert artifact.recipe == Recipe(epochs=7, augment=DsaTrain(Siamese.digits()))
    assert abs(float(artifact.batch().x.double().sum()) - artifact.provenance["sum"]) < 1e-3


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_with_a_right_digest_and_wrong_contents_is_one_sentence(data: st.DataObject) -> None:
    """Someone else's file: well formed, signed, and nonsense."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.safetensors"
        make().save(path)
        tree = load_tree(path, kind=KIND, version=VERSION)
        spoil(tree, data)
        save_tree(path, tree, kind=KIND, version=VERSION)
        try:
            Artifact.load(path)
        except DamagedFile as error:
            assert "\n" not in str(error)


def spoil(tree: dict[str, Any], data: st.DataObject) -> None:
    """Replace or remove something at a random depth."""
    node: Any = tree
    while True:
        key = data.draw(st.sampled_from(sorted(node, key=str)))
        if isinstance(node[key], dict) and node[key] and data.draw(st.booleans()):
            node = node[key]
            continue
        if data.draw(st.booleans()):
            del node[key]
        else:
            odd = (
                st.none()
                | st.integers()
                | st.text(max_size=5)
                | st.just(torch.zeros(2, 2))
                | st.just({"type": "Evil"})
                | st.just([])
            )
            node[key] = data.draw(odd)
        return


def test_configs_round_trip_and_name_only_what_is_allowed() -> None:
    classes = {c.__name__: c for c in CLASSES}
    for value in (Siamese.natural(), DsaTrain(Siamese.digits()), OneOfPerImage.frepo(), DcTrain.batch_norm()):
        assert from_config(to_config(value), classes) == value
    with pytest.raises(ValueError, match="Unknown type 'Popen'; this version knows"):
        from_config({"type": "Popen", "args": ["ls"]}, classes)
    with pytest.raises(ValueError, match="do not fit this version"):
        from_config({"type": "Siamese", "colour": 1}, classes)


if __name__ == "__main__":  # makes the fixture: once, with the first release
    FIXTURE.parent.mkdir(exist_ok=True)
    made = VARIANTS["learned"]()
    doubled = tiny_images(
        blobs(), 1, formation=MultiFormation(2), mirrored=True, labels=torch.rand(12, 3), learn_labels=True
    )
    total = float(doubled().x.detach().double().sum())
    make(doubled, provenance={"sum": total}).save(FIXTURE)
