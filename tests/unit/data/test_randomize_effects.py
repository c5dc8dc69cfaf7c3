"""Each effect against closed forms and brute force; identity parameters change no bit."""

import colorsys

import numpy as np
import pytest
import torch
from scipy import ndimage

from rlft.data.randomize import effects


def images(n=3, h=13, w=17, seed=0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, h, w), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def of(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def placed(frames, kept=1.0, start=(0.0, 0.0), moved=((0.0,), (0.0,))) -> torch.Tensor:
    rows = torch.ones(len(frames))
    return effects.place(frames, kept * rows, tuple(s * rows for s in start), tuple(of(*m) * rows for m in moved))


def near(out: torch.Tensor, wanted: np.ndarray) -> bool:
    return np.abs(out.numpy() - np.clip(wanted, 0, 255)).max() <= 0.51  # rounded to the nearest


IDENTITIES = {
    "add": lambda x: effects.add(x, effects.per_row(torch.zeros(len(x)))),
    "contrast": lambda x: effects.contrast(x, torch.ones(len(x))),
    "saturation": lambda x: effects.saturation(x, torch.ones(len(x))),
    "hue": lambda x: effects.hue(x, torch.zeros(len(x))),
    "a turn of the hue by 360 degrees": lambda x: effects.hue(x, torch.full((len(x),), 360.0)),
    "blur": lambda x: effects.blur(x, torch.zeros(len(x)), 1.5),
    "place": placed,
    "mix": lambda x: effects.mix(x, x.flip(0), torch.zeros(len(x))),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_parameters_change_no_bit(name):
    every_colour = torch.stack(torch.meshgrid(*[torch.arange(0, 256, 5)] * 3, indexing="ij"))
    frames = every_colour.flatten(1).unflatten(1, (52, -1))[None].to(torch.uint8)
    assert torch.equal(IDENTITIES[name](frames), frames)
    assert torch.equal(IDENTITIES[name](images()), images())


def test_closed_forms():
    frames, others = images(2), images(2, seed=1)
    x, y = frames.double().numpy(), others.double().numpy()
    assert near(effects.add(frames, effects.per_row(of(-300.0, 5.4))), x + np.array([-300.0, 5.4])[:, None, None, None])
    mean = x.mean((1, 2, 3), keepdims=True)
    assert near(effects.contrast(frames, of(0.5, 0.5)), (x - mean) * 0.5 + mean)
    luma = (x * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdims=True)
    assert near(effects.saturation(frames, of(0.0, 0.0)), np.repeat(luma, 3, 1))
    assert near(effects.saturation(frames, of(1.5, 1.5)), (x - luma) * 1.5 + luma)
    assert near(effects.mix(frames, others, of(0.25, 0.25)), 0.75 * x + 0.25 * y)


def test_the_hue_turns_and_turns_back_and_the_mean_stays():
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None]
    assert effects.hue(red, of(120.0)).flatten().tolist() == [0, 255, 0]
    frames = images().float().mul(0.2).add(100).to(torch.uint8)  # far from both ends: nothing is clipped
    there = effects.hue(frames, of(40.0, 40.0, 40.0))
    assert int((effects.hue(there, of(-40.0, -40.0, -40.0)).int() - frames.int()).abs().max()) <= 2
    assert float((there.double() - frames.double()).mean(1).abs().max()) <= 0.51
    before, after = (colorsys.rgb_to_hsv(*(int(v) for v in x[0, :, 0, 0])) for x in (frames, there))
    assert (after[0] - before[0]) % 1.0 * 360 == pytest.approx(40.0, abs=6.0)


def test_noise_has_the_std_that_is_asked_for():
    frames = torch.full((2, 3, 128, 128), 128, dtype=torch.uint8)
    field = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    apart = effects.add(frames, field * effects.per_row(of(5.0, 20.0))).double() - 128
    assert apart.std(dim=(1, 2, 3)).tolist() == pytest.approx([5.0, 20.0], rel=0.02)
    assert float(apart.mean(dim=(1, 2, 3)).abs().max()) < 0.3


def test_blur_is_a_gaussian_filter():
    frames = images(2, 21, 24)
    out = effects.blur(frames, of(0.7, 1.5), 1.5)
    for row, sigma in enumerate((0.7, 1.5)):
        wanted = ndimage.gaussian_filter(frames[row].double().numpy(), sigma, mode="nearest", radius=5, axes=(1, 2))
        assert near(out[row], wanted)


def test_a_window_is_sampled_bilinearly():
    frames, kept, start = images(1), 0.6, (0.3, 0.15)
    sides = [(np.arange(n) + 0.5) * kept + s * n - 0.5 for n, s in zip(frames.shape[-2:], start)]
    at = np.meshgrid(*sides, indexing="ij")
    wanted = [ndimage.map_coordinates(x, at, order=1, mode="nearest") for x in frames[0].double().numpy()]
    assert near(placed(frames, kept, start)[0], np.stack(wanted))


def test_a_move_is_by_whole_pixels_and_repeats_the_border():
    frames = images(2)
    out = placed(frames, moved=((3.0, -2.0), (-4.0, 1.0)))
    for row, (down, right) in enumerate([(3, -4), (-2, 1)]):
        wanted = ndimage.shift(frames[row].numpy(), (0, down, right), order=0, mode="nearest")
        assert np.array_equal(out[row].numpy(), wanted)
