from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from condensery.batch import Batch
from condensery.configs import from_config, to_config
from condensery.data.augment import (
    CLASSES,
    Border,
    Choice,
    Colour,
    Crop,
    Cutout,
    DcStep,
    DcTrain,
    Draw,
    DsaTrain,
    Erase,
    Flip,
    Jitter,
    OneOfPerImage,
    Op,
    Rotate,
    Scale,
    Siamese,
    Translate,
    Zoom,
    mirrored,
)

DSA = (Colour(), Crop(0.25), Cutout(), Flip(), Scale(), Rotate(), Rotate(40.0, Border.EDGE))
EVERY = (*DSA, Jitter(), Zoom(), Translate(), Erase())
AUGMENTS = (
    DsaTrain(Siamese.natural()),
    DsaTrain(Siamese.digits()),
    OneOfPerImage.rcig(),
    OneOfPerImage.frepo_digits(),
    DcTrain.digits(),
    DcTrain.batch_norm(),
    DcTrain(tuple(DcStep)),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 4, c: int = 3, h: int = 8, w: int = 8, *, seed: int = 0) -> Tensor:
    return torch.randn(n, c, h, w, generator=seeded(seed), dtype=torch.float64)


def name(op: object) -> str:
    return repr(op)


# What each operation does -----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", EVERY, ids=name)
@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (2, 1, 7, 10)])
def test_one_draw_for_all_is_the_same_draw_for_each(op: Op, shape: tuple[int, int, int, int]) -> None:
    x = images(*shape)
    for seed in range(5):
        params = op.draw(seeded(seed), x.shape)
        each = torch.tensor([params], dtype=torch.float64).expand(len(x), -1)
        torch.testing.assert_close(op.apply(x, params), op.apply_each(x, each), atol=1e-12, rtol=0)


@pytest.mark.parametrize("op", EVERY, ids=name)
def test_each_image_follows_its_own_parameters(op: Op) -> None:
    x = images(5)
    params = op.draw_each(seeded(3), x.shape)
    changed = op.apply_each(x, params)
    for i in range(len(x)):
        alone = op.apply(x[i : i + 1], tuple(params[i].tolist()))
        torch.testing.assert_close(changed[i : i + 1], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 9, 6)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_scale_and_rotate_agree_with_grid_sample(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    x = images(*shape).to(dtype)
    for across, down, degrees in [(0.83, 1.2, 15.0), (1.1, 0.9, -7.3), (1.0, 1.0, 80.0)]:
        zoomed, turned = Scale().apply(x, (across, down)), Rotate().apply(x, (degrees,))
        scale = torch.tensor([[across, 0, 0], [0, down, 0]], dtype=torch.float64)
        # In double, so that only our own rounding is measured.
        torch.testing.assert_close(zoomed.double(), sampled(x.double(), scale), atol=tolerance, rtol=0)
        torch.testing.assert_close(turned.double(), sampled(x.double(), turn(degrees)), atol=tolerance, rtol=0)


def turn(degrees: float) -> Tensor:
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), -angle.sin(), angle * 0, angle.sin(), angle.cos(), angle * 0]).view(2, 3)


def sampled(x: Tensor, theta: Tensor, padding: str = "zeros") -> Tensor:
    grid = functional.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode=padding, align_corners=False)


def test_rotation_with_a_repeated_edge_agrees_with_grid_sample() -> None:
    x = images(2, 3, 8, 8)
    actual = Rotate(33.0, Border.EDGE).apply(x, (33.0,))
    torch.testing.assert_close(actual, sampled(x, turn(33.0), "border"), atol=1e-12, rtol=0)


def test_a_right_angle_is_rot90() -> None:
    x = images(2, 3, 6, 6)
    torch.testing.assert_close(Rotate().apply(x, (90.0,)), torch.rot90(x, 1, (2, 3)), atol=1e-12, rtol=0)


def test_crop_moves_by_whole_pixels_and_brings_in_zeros() -> None:
    x = images(2, 1, 5, 6)
    moved = Crop().apply(x, (2.0, -1.0))
    for row in range(5):
        for column in range(6):
            source = (row + 2, column - 1)
            inside = 0 <= source[0] < 5 and 0 <= source[1] < 6
            expected = x[:, 0, source[0], source[1]] if inside else torch.zeros(2, dtype=x.dtype)
            assert torch.equal(moved[:, 0, row, column], expected)


@pytest.mark.parametrize("corner", [(-2, 1), (0, 0), (3, 3), (6, -4), (2, 6)])
def test_cutout_is_cut_at_the_border(corner: tuple[int, int]) -> None:
    x = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    cut = Cutout(0.5).apply(x, tuple(map(float, corner)))
    for row in range(8):
        for column in range(8):
            hidden = 0 <= row - corner[0] < 4 and 0 <= column - corner[1] < 4
            assert cut[0, :, row, column].tolist() == ([0.0, 0.0] if hidden else [1.0, 1.0])


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_is_brightness_then_saturation_then_contrast(channels: int) -> None:
    x = images(3, channels)
    shift, saturation, contrast = 0.3, 1.7, 0.6
    y = x + shift
    grey = y.mean(dim=1, keepdim=True)
    y = (y - grey) * saturation + grey
    level = y.mean(dim=(1, 2, 3), keepdim=True)
    y = (y - level) * contrast + level
    torch.testing.assert_close(Colour().apply(x, (shift, saturation, contrast)), y, atol=1e-12, rtol=0)


def test_one_channel_has_no_saturation() -> None:
    x = images(2, 1)
    torch.testing.assert_close(Colour().apply(x, (0.0, 0.2, 1.0)), x, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (-2, 3)])
def test_translation_repeats_the_edge(rows: int, columns: int) -> None:
    x = images(2, 1, 8, 8)
    moved = Translate().apply(x, (rows / 8, columns / 8))
    source_rows = (torch.arange(8) + rows).clamp(0, 7)
    source_columns = (torch.arange(8) + columns).clamp(0, 7)
    torch.testing.assert_close(moved, x[:, :, source_rows][..., source_columns], atol=1e-12, rtol=0)


def test_zooming_in_stays_inside_the_image() -> None:
    # A ramp shows where each pixel came from: between two pixel centres it is the coordinate itself.
    ramp = torch.arange(16, dtype=torch.float64).expand(200, 1, 16, 16)
    op = Zoom(1.25, 1.25)
    seen = op.apply_each(ramp, op.draw_each(seeded(), ramp.shape))[:, 0, 0]
    torch.testing.assert_close(
        seen.diff(dim=1)[:, 1:-1], torch.full((200, 13), 0.8, dtype=torch.float64), atol=1e-9, rtol=0
    )
    first, last = seen[:, 1] - 0.8, seen[:, -2] + 0.8
    assert first.min() >= -0.5
    assert last.max() <= 15.5
    assert first.min() < 0.2
    assert last.max() > 14.8


def test_zooming_out_shrinks_about_a_place_inside() -> None:
    x = torch.ones(1, 1, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(Zoom().apply(x, (0.8, 1.0, -1.0)), x)
    ramp = torch.arange(20, dtype=torch.float64).expand(1, 1, 20, 20)
    shrunk = Zoom().apply(ramp, (0.8, 0.0, 0.0))[0, 0, 0]
    centred = (torch.arange(20, dtype=torch.float64) - 9.5) / 0.8 + 9.5
    torch.testing.assert_close(shrunk, centred.clamp(0, 19), atol=1e-9, rtol=0)


def test_erase_always_lies_inside() -> None:
    x = torch.ones(300, 1, 9, 12, dtype=torch.float64)
    op = Erase(0.25)
    erased = op.apply_each(x, op.draw_each(seeded(), x.shape))
    assert ((erased == 0).sum(dim=(1, 2, 3)) == 2 * 3).all()
    assert (erased == 0).any(dim=0).all()  # every pixel can be hit


@pytest.mark.parametrize(
    "op",
    [Flip(0.0), Scale(1.0), Rotate(0.0), Rotate(0.0, Border.EDGE), Crop(0.0), Cutout(0.0), Erase(0.0)],
    ids=name,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (2, 1, 7, 11)])
def test_no_strength_changes_nothing_at_all(op: Op, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = images(*shape).to(dtype)
    assert torch.equal(op.apply(x, op.draw(seeded(), x.shape)), x)


@pytest.mark.parametrize("op", [Jitter(0, 0, 0), Translate(0.0), Zoom(1.0, 1.0), Scale(1.0), Rotate(0.0)], ids=name)
def test_no_strength_changes_nothing_but_rounding(op: Op) -> None:
    x = images(3, 3, 7, 11)
    torch.testing.assert_close(op.apply_each(x, op.draw_each(seeded(), x.shape)), x, atol=1e-12, rtol=0)


# Derivatives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", EVERY, ids=name)
def test_first_and_second_derivatives(op: Op) -> None:
    x = images(2, 2, 5, 6).requires_grad_()
    params = op.draw(seeded(4), x.shape)
    forward_mode = op in DSA
    assert gradcheck(lambda x: op.apply(x, params), (x,), check_forward_ad=forward_mode)
    # Squared, as a linear map's own second derivative is zero.
    assert gradgradcheck(lambda x: op.apply(x, params) ** 2, (x,), check_fwd_over_rev=forward_mode)


@pytest.mark.parametrize("op", EVERY, ids=name)
def test_derivatives_with_parameters_for_each_image(op: Op) -> None:
    x = images(2, 2, 5, 6).requires_grad_()
    params = op.draw_each(seeded(4), x.shape)
    assert gradcheck(lambda x: op.apply_each(x, params), (x,))
    assert gradgradcheck(lambda x: op.apply_each(x, params) ** 2, (x,))


@pytest.mark.parametrize("op", DSA, ids=name)
def test_vmap_over_batches(op: Op) -> None:
    x = images(6, 2, 5, 6).view(3, 2, 2, 5, 6)
    draw = Draw(op, op.draw(seeded(2), x.shape[1:]))
    torch.testing.assert_close(torch.func.vmap(draw)(x), torch.stack([draw(part) for part in x]))


@pytest.mark.parametrize("augment", AUGMENTS, ids=name)
def test_training_augmentations_pass_gradients(augment) -> None:
    x = images(12).requires_grad_()
    (gradient,) = torch.autograd.grad(augment(x, seeded()).square().sum(), x)
    assert gradient.abs().sum() > 0


# Draws ------------------------------------------------------------------------------------------------------


def drawn(op: Op, shape: tuple[int, ...] = (4000, 3, 8, 8)) -> Tensor:
    return op.draw_each(seeded(), shape)


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        (Scale(1.2), [1 / 1.2] * 2, [1.2] * 2),
        (Rotate(15.0), [-15.0], [15.0]),
        (Colour(1.0, 2.0, 0.5), [-0.5, 0.0, 0.5], [0.5, 2.0, 1.5]),
        (Translate(0.125), [-0.125] * 2, [0.125] * 2),
    ],
    ids=name,
)
def test_uniform_draws(op: Op, low: list[float], high: list[float]) -> None:
    params = drawn(op)
    low_, high_ = torch.tensor(low).double(), torch.tensor(high).double()
    assert (params >= low_).all()
    assert (params <= high_).all()
    width = high_ - low_
    torch.testing.assert_close(params.mean(dim=0), (low_ + high_) / 2, atol=0.02 * float(width.max()), rtol=0)
    torch.testing.assert_close(params.std(dim=0), width / 12**0.5, atol=0.02 * float(width.max()), rtol=0)
    assert params.shape[1] == 1 or abs(torch.corrcoef(params.T)[0, 1]) < 0.05  # drawn apart


@pytest.mark.parametrize(
    ("op", "shape", "values"),
    [
        (Crop(0.125), (8, 8), [-1, 0, 1]),
        (Crop(0.125), (28, 28), [-4, -3, -2, -1, 0, 1, 2, 3, 4]),  # 3.5 rounds up
        (Cutout(0.5), (8, 8), list(range(-2, 7))),  # centres 0 ... 8
        (Cutout(0.5), (6, 6), list(range(-1, 5))),  # an odd side: centres 0 ... 5
        (Erase(0.25), (8, 8), list(range(7))),
    ],
    ids=name,
)
def test_whole_number_draws(op: Op, shape: tuple[int, int], values: list[int]) -> None:
    params = drawn(op, (4000, 3, *shape))
    for column in params.unbind(1):
        found, counts = column.unique(return_counts=True)
        assert found.tolist() == values
        assert counts.min() > 0.7 * len(column) / len(values)


def test_log_uniform_draws() -> None:
    zoom = drawn(Zoom())[:, 0].log()
    assert zoom.min() >= np.log(0.8) - 1e-9
    assert zoom.max() <= np.log(1.25) + 1e-9
    assert abs(zoom.mean()) < 0.01
    factors = drawn(Jitter(0.1, 0.2, 0.3))[:, 1:].log()
    torch.testing.assert_close(factors.abs().amax(dim=0), torch.tensor([0.2, 0.3]).double(), atol=1e-3, rtol=0)


def test_flips_come_as_often_as_asked() -> None:
    assert abs(drawn(Flip(0.3)).mean() - 0.3) < 0.03


def test_every_operation_is_as_likely() -> None:
    siamese, generator = Siamese.natural(), seeded()
    names = [type(siamese.draw(generator, (1, 3, 8, 8)).op) for _ in range(1200)]
    counts = [names.count(type(op)) for op in siamese.ops]
    assert sum(counts) == 1200
    assert min(counts) > 150


def test_one_draw_fits_two_batches() -> None:
    siamese, generator = Siamese.natural(), seeded()
    real, synthetic = images(9), images(9)[:2]
    for _ in range(30):
        draw = siamese.draw(generator, real.shape)
        torch.testing.assert_close(siamese(real, draw)[:2], siamese(synthetic, draw), atol=1e-14, rtol=0)


def test_the_batch_length_does_not_change_the_draw() -> None:
    siamese = Siamese.natural()
    for seed in range(20):
        assert siamese.draw(seeded(seed), (256, 3, 8, 8)) == siamese.draw(seeded(seed), (1, 3, 8, 8))


def test_parameters_are_plain_numbers() -> None:
    for op in EVERY:
        assert all(type(value) is float for value in op.draw(seeded(), (5, 3, 8, 8)))


def test_digits_are_never_mirrored() -> None:
    assert Flip() in Siamese.natural().ops
    assert Flip() not in Siamese.digits().ops
    assert Flip() not in OneOfPerImage.rcig_digits().ops


@pytest.mark.parametrize("augment", AUGMENTS, ids=name)
def test_same_generator_same_images_and_no_global_state(augment) -> None:
    x = images(16)
    before = torch.get_rng_state()
    for seed in range(8):
        first = augment(x, seeded(seed))
        assert first.shape == x.shape
        assert first.dtype == x.dtype
        assert torch.equal(first, augment(x, seeded(seed)))
    Siamese.natural().draw(seeded(), x.shape)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(x, images(16))  # nothing is written in place
    assert not torch.equal(augment(x, seeded(1)), augment(x, seeded(2)))


@pytest.mark.parametrize("augment", AUGMENTS, ids=name)
def test_an_empty_batch_stays_empty(augment) -> None:
    assert augment(torch.zeros(0, 3, 8, 8), seeded()).shape == (0, 3, 8, 8)


# Training ---------------------------------------------------------------------------------------------------


def test_an_operation_for_each_image_or_for_the_batch() -> None:
    x = torch.arange(1.0, 9.0).expand(64, 1, 8, 8)
    ops = (Flip(1.0), Erase(1.0), Crop(0.0))
    kinds = {
        choice: [
            {tuple(row.tolist()) for row in OneOfPerImage(ops, choice)(x, seeded(seed))[:, 0, 0]} for seed in range(12)
        ]
        for choice in Choice
    }
    assert all(len(found) == 3 for found in kinds[Choice.IMAGE])
    assert all(len(found) == 1 for found in kinds[Choice.BATCH])
    assert len(set.union(*kinds[Choice.BATCH])) == 3


def test_every_image_keeps_its_place() -> None:
    x = torch.arange(1.0, 41.0).view(40, 1, 1, 1).expand(40, 1, 4, 4)
    changed = OneOfPerImage((Flip(1.0), Crop(0.0), Translate()))(x, seeded())
    torch.testing.assert_close(changed, x)


def test_dsa_training_draws_one_operation_and_parameters_for_each_image() -> None:
    augment = DsaTrain(Siamese((Rotate(),)))
    x = images(1).expand(6, -1, -1, -1)
    changed = augment(x, seeded())
    assert all(not torch.equal(changed[0], other) for other in changed[1:])


def test_dc_crop_pads_with_the_mean_colour() -> None:
    x = images(50, 3, 6, 6)
    colour = x.mean(dim=(0, 2, 3))
    changed = DcTrain((DcStep.CROP,), crop=2)(x, seeded())
    padded = functional.pad(x - colour.view(1, 3, 1, 1), (2, 2, 2, 2)) + colour.view(1, 3, 1, 1)
    places = set()
    for before, after in zip(padded, changed, strict=True):
        fits = [
            (row, column)
            for row in range(4)
            for column in range(4)
            if torch.allclose(before[:, row : row + 6, column : column + 6], after)
        ]
        assert len(fits) == 1
        places.update(fits)
    assert {row for row, _ in places} == {0, 1, 2, 3}


def test_dc_scale_resizes_to_the_nearest_pixel_about_the_middle() -> None:
    x = images(40, 2, 10, 10)
    changed = DcTrain((DcStep.SCALE,), scale=0.3)(x, seeded(5))
    generator = seeded(5)
    torch.randint(1, (40,), generator=generator)  # the choice among one step
    heights, widths = (0.7 + 0.6 * torch.rand(40, generator=generator, dtype=torch.float64) for _ in range(2))
    for i in range(40):
        height, width = int(heights[i] * 10), int(widths[i] * 10)
        side = max(height, width, 10)
        canvas = torch.zeros(2, side, side, dtype=x.dtype)
        top, left = (side - height) // 2, (side - width) // 2
        small = functional.interpolate(x[i : i + 1], (height, width))[0]
        canvas[:, top : top + height, left : left + width] = small
        corner = (side - 10) // 2
        assert torch.equal(changed[i], canvas[:, corner : corner + 10, corner : corner + 10])


def test_dc_rotation_agrees_with_scipy_inside() -> None:
    x = images(8, 2, 21, 21)
    changed = DcTrain((DcStep.ROTATE,), rotate=45)(x, seeded(5))
    generator = seeded(5)
    torch.randint(1, (8,), generator=generator)
    angles = torch.randint(-45, 45, (8,), generator=generator)
    level = float(x.mean())
    for image, angle, after in zip(x.numpy(), angles.tolist(), changed, strict=True):
        turned = ndimage.rotate(image, angle, axes=(-2, -1), reshape=False, order=1, cval=level)
        np.testing.assert_allclose(after.numpy()[:, 7:14, 7:14], turned[:, 7:14, 7:14], atol=1e-9)
    flat = DcTrain((DcStep.ROTATE,))(torch.full((8, 1, 9, 9), 0.7), seeded())
    torch.testing.assert_close(flat, torch.full((8, 1, 9, 9), 0.7))


def test_dc_noise_has_its_deviation() -> None:
    x = images(20, 3, 16, 16)
    noise = DcTrain((DcStep.NOISE,), noise=0.01)(x, seeded()) - x
    assert abs(noise.std() - 0.01) < 3e-4


@pytest.mark.parametrize("step", [DcStep.CROP, DcStep.SCALE, DcStep.ROTATE, DcStep.NOISE])
def test_dc_without_strength_changes_nothing(step: DcStep) -> None:
    x = images(6)
    augment = DcTrain((step,), crop=0, scale=0, rotate=0, noise=0)
    torch.testing.assert_close(augment(x, seeded()), x, atol=1e-12, rtol=0)


def test_mirrored_doubles_the_batch() -> None:
    batch = Batch(images(3), torch.tensor([2, 0, 1]))
    double = mirrored(batch)
    assert torch.equal(double.x[:3], batch.x)
    assert torch.equal(double.x[3:], batch.x.flip(3))
    assert double.y.tolist() == [2, 0, 1, 2, 0, 1]
    soft = mirrored(Batch(images(2), torch.eye(2)))
    assert soft.y.shape == (4, 2)


def test_a_generator_elsewhere_is_refused() -> None:
    class Elsewhere:
        device = torch.device("meta")

    for draw in (
        lambda: Siamese.natural().draw(Elsewhere(), (1, 3, 8, 8)),  # type: ignore[arg-type]
        lambda: OneOfPerImage.rcig()(images(), Elsewhere()),  # type: ignore[arg-type]
        lambda: DcTrain()(images(), Elsewhere()),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=r"pass torch.Generator\(\)"):
            draw()


# Configurations and errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [Siamese.natural(), Siamese(EVERY), *AUGMENTS], ids=name)
def test_configurations_survive_json(augment) -> None:
    classes = {cls.__name__: cls for cls in CLASSES}
    assert from_config(json.loads(json.dumps(to_config(augment))), classes) == augment


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Flip(1.5), "probability"),
        (lambda: Scale(0.8), "at least 1"),
        (lambda: Rotate(-1.0), "negative"),
        (lambda: Crop(0.7), r"\[0, 0.5\]"),
        (lambda: Cutout(-0.1), r"\[0, 1\]"),
        (lambda: Erase(2.0), r"\[0, 1\]"),
        (lambda: Translate(2.0), r"\[0, 1\]"),
        (lambda: Zoom(2.0, 1.0), "low <= high"),
        (lambda: Colour(-1.0), "negative"),
        (lambda: Jitter(contrast=-1.0), "negative"),
        (lambda: Siamese(()), "at least one"),
        (lambda: OneOfPerImage(()), "at least one"),
        (lambda: DcTrain(()), "at least one"),
        (lambda: DcTrain(scale=1.0), "scale"),
        (lambda: DcTrain(crop=-1), "negative"),
        (lambda: Siamese.natural().draw(seeded(), (3, 8, 8)), r"\[n, c, h, w\]"),
        (lambda: Draw(Flip(), (1.0,))(torch.zeros(3, 8)), r"\[n, c, h, w\]"),
        (lambda: OneOfPerImage.rcig()(torch.zeros(3, 8), seeded()), r"\[n, c, h, w\]"),
        (lambda: DcTrain()(torch.zeros(3, 8), seeded()), r"\[n, c, h, w\]"),
    ],
)
def test_errors_say_what_to_do(wrong, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()
