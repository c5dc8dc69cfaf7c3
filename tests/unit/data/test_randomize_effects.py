"""Each effect against closed forms and brute force; identity parameters change no bit."""

import colorsys

import numpy as np
import pytest
import torch

from rlft.data.randomize import effects


def pictures(n=3, h=13, w=17, seed=0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, h, w), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def of(*values: float, dtype=torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def wide(*values: float) -> torch.Tensor:
    return of(*values, dtype=torch.float64)


def matrix(saturation: float, hue: float, n=1) -> torch.Tensor:
    return effects.colour_matrix(wide(*[saturation] * n), wide(*[hue] * n))


def windows(frames: torch.Tensor, kept: float, top: float, left: float) -> list[tuple[torch.Tensor, ...]]:
    n, _, h, w = frames.shape
    return [effects.window(wide(*[kept] * n), wide(*[start] * n), size) for start, size in ((top, h), (left, w))]


def test_brightness_adds_exactly():
    frames = pictures()
    out = effects.brightness(frames, of(10.0, -300.0, 5.4))
    assert torch.equal(out[0], (frames[0].int() + 10).clamp(0, 255).to(torch.uint8))
    assert torch.equal(out[1], torch.zeros_like(frames[1]))
    assert torch.equal(out[2], (frames[2].int() + 5).clamp(0, 255).to(torch.uint8))


def test_contrast_stretches_about_the_pictures_own_mean():
    frames = pictures(2)
    out = effects.contrast(frames, of(0.0, 0.5))
    means = frames.double().mean(dim=(1, 2, 3))
    assert torch.equal(out[0], torch.full_like(frames[0], round(float(means[0]))))
    expected = (frames[1].double() - means[1]) * 0.5 + means[1]
    assert float((out[1].double() - expected).abs().max()) <= 0.501


IDENTITIES = {
    "brightness": lambda x: effects.brightness(x, torch.zeros(len(x))),
    "contrast": lambda x: effects.contrast(x, torch.ones(len(x))),
    "colour": lambda x: effects.colour(x, matrix(1.0, 0.0, len(x))),
    "a turn of the hue by 360 degrees": lambda x: effects.colour(x, matrix(1.0, 360.0, len(x))),
    "noise": lambda x: effects.noise(x, torch.zeros(len(x)), torch.randn(x.shape, generator=torch.Generator())),
    "blur": lambda x: effects.blur(x, effects.blur_weights(wide(*[0.0] * len(x)), 1.5)),
    "crop": lambda x: effects.crop(x, *windows(x, 1.0, 0.0, 0.0)),
    "shift": lambda x: effects.shift(x, torch.zeros(len(x)).long(), torch.zeros(len(x)).long()),
    "blend": lambda x: effects.blend(x, x.flip(0), torch.zeros(len(x))),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_parameters_change_no_bit(name):
    every_colour = torch.stack(torch.meshgrid(*[torch.arange(0, 256, 5)] * 3, indexing="ij"))
    frames = every_colour.flatten(1).unflatten(1, (52, -1))[None].to(torch.uint8)
    assert torch.equal(IDENTITIES[name](frames), frames)
    assert torch.equal(IDENTITIES[name](pictures()), pictures())


def test_no_saturation_is_luma_in_every_channel():
    frames = pictures()
    luma = (frames.double() * wide(0.299, 0.587, 0.114)[:, None, None]).sum(1)
    out = effects.colour(frames, matrix(0.0, 77.0, 3))
    for channel in range(3):
        assert float((out[:, channel].double() - luma).abs().max()) <= 0.501


def test_the_hue_turns_and_turns_back_and_luma_stays():
    frames = pictures().float().mul(0.2).add(100).to(torch.uint8)  # far from both ends: nothing is clipped
    there = effects.colour(frames, matrix(1.0, 120.0, 3))
    assert not torch.equal(there, frames)
    back = effects.colour(there, matrix(1.0, -120.0, 3))
    assert int((back.int() - frames.int()).abs().max()) <= 2
    weights = of(0.299, 0.587, 0.114)[:, None, None]
    assert float(((there - frames.float()) * weights).sum(1).abs().max()) <= 0.51
    colour = there[0, :, 0, 0].tolist()
    before = colorsys.rgb_to_yiq(*(x / 255 for x in frames[0, :, 0, 0].tolist()))
    after = colorsys.rgb_to_yiq(*(x / 255 for x in colour))
    turned = np.degrees(np.angle(complex(*after[1:]) / complex(*before[1:])))
    assert abs(turned - 120.0) < 3.0


def test_noise_has_the_std_that_is_asked_for():
    frames = torch.full((2, 3, 128, 128), 128, dtype=torch.uint8)
    field = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    apart = effects.noise(frames, of(5.0, 20.0), field).double() - 128
    stds, means = apart.std(dim=(1, 2, 3)), apart.mean(dim=(1, 2, 3))
    assert stds[0] == pytest.approx(5.0, rel=0.02)
    assert stds[1] == pytest.approx(20.0, rel=0.02)
    assert float(means.abs().max()) < 0.3


def test_blur_is_a_gaussian_filter():
    frames = pictures(2, 21, 24)
    sigmas = (0.7, 1.5)
    out = effects.blur(frames, effects.blur_weights(wide(*sigmas), 1.5))
    at = np.arange(-5, 6)
    for row, sigma in enumerate(sigmas):
        bell = np.exp(-0.5 * (at / sigma) ** 2)
        bell /= bell.sum()
        padded = np.pad(frames[row].double().numpy(), ((0, 0), (5, 5), (5, 5)), mode="edge")
        for y, x in [(0, 0), (10, 11), (20, 23), (3, 19)]:
            expected = np.einsum("cij,i,j->c", padded[:, y : y + 11, x : x + 11], bell, bell)
            assert np.abs(out[row, :, y, x].numpy() - expected).max() <= 0.65


def test_blur_keeps_a_plain_picture_and_its_arithmetic_is_exact():
    white = torch.full((1, 3, 9, 9), 255, dtype=torch.uint8)
    weights = effects.blur_weights(wide(3.0), 10.0)
    assert float(weights.sum()) == 4096.0
    assert torch.equal(effects.blur(white, weights), white)
    assert 255 * 2**effects.HALF_BITS * 2**effects.WEIGHT_BITS < 2**24


def test_crop_is_bilinear_sampling_of_the_window():
    frames, kept, top, left = pictures(1), 0.6, 0.3, 0.15
    out = effects.crop(frames, *windows(frames, kept, top, left))[0].double().numpy()
    source = frames[0].double().numpy()
    _, h, w = source.shape
    for i in range(h):
        for j in range(w):
            y = min(max((i + 0.5) * kept + top * h - 0.5, 0.0), h - 1.0)
            x = min(max((j + 0.5) * kept + left * w - 0.5, 0.0), w - 1.0)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            upper = source[:, y0, x0] * (1 - x + x0) + source[:, y0, x1] * (x - x0)
            lower = source[:, y1, x0] * (1 - x + x0) + source[:, y1, x1] * (x - x0)
            assert np.abs(out[:, i, j] - (upper * (1 - y + y0) + lower * (y - y0))).max() <= 0.501


def test_shift_moves_by_whole_pixels_and_repeats_the_border():
    frames = pictures(2)
    out = effects.shift(frames, torch.tensor([3, -2]), torch.tensor([-4, 1]))
    h, w = frames.shape[-2:]
    for row, (down, right) in enumerate([(3, -4), (-2, 1)]):
        for i in range(h):
            for j in range(w):
                y, x = min(max(i - down, 0), h - 1), min(max(j - right, 0), w - 1)
                assert torch.equal(out[row, :, i, j], frames[row, :, y, x])


def test_blend_mixes_and_ends_at_the_other_picture():
    a, b = pictures(2), pictures(2, seed=1)
    out = effects.blend(a, b, of(0.25, 1.0))
    assert float((out[0].double() - (0.75 * a[0].double() + 0.25 * b[0].double())).abs().max()) <= 0.501
    assert torch.equal(out[1], b[1])
