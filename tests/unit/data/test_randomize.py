"""Randomised images: named draws, rows that do not know each other, the proof of change; each effect in closed form."""

import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.crossings import META, Crossings
from PIL import Image
from scipy import ndimage

from rlft.config.schema import DomainRandomizationConfig, OverlayConfig, TextureConfig, enabled_effects
from rlft.data.randomize import effects
from rlft.data.randomize.randomizer import SLOTS, ImageRandomizer, around_zero, draw, pick
from rlft.errors import ConfigError
from rlft.types import Observation

CPU = torch.device("cpu")
NUMERIC = {
    "brightness": 0.2, "contrast": 0.4, "saturation": 0.5, "hue": 40.0, "noise": 0.05, "blur": 1.2, "crop": 0.2,
    "shift": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four images of different sizes."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i, size in enumerate([(40, 56), (20, 28), (24, 32), (48, 64)]):
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"{i}.png")
    return root


def everything(folder: Path, **changes) -> DomainRandomizationConfig:
    overlay = OverlayConfig(folder=str(folder), files=["[23].png"], known_files=["[01].png"], min_match=0.01)
    texture = TextureConfig(folder=str(folder), files=["0.png", "3.png"], ratio=0.4)
    return DomainRandomizationConfig(**(NUMERIC | {"texture": texture, "overlay": overlay} | changes))


def randomizer(cfg: DomainRandomizationConfig, **changes) -> ImageRandomizer:
    return ImageRandomizer(cfg, **({"seed": 0, "purpose": "test", "device": CPU} | changes))


def observation(n=5, cameras=("base", "wrist"), h=20, w=28) -> Observation:
    generator = np.random.default_rng(n)
    images = {name: generator.integers(0, 256, (n, h, w, 3), dtype=np.uint8) for name in cameras}
    return Observation(images=images, state=np.zeros((n, 2), np.float32), task=["go"] * n)


def names(n: int) -> list[tuple[int, ...]]:
    return [(0, i, 0) for i in range(n)]


def noisy(n: int, h=20, w=28) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, h, w), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_does_not_depend_on_the_batch_it_stands_in(folder, threads):
    frames, before = noisy(9, 50, 70), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for cfg in (everything(folder), *(DomainRandomizationConfig(**{k: NUMERIC[k]}) for k in NUMERIC)):
            change = randomizer(cfg).change
            whole = change(frames, names(9))
            assert not torch.equal(whole.frames, frames), enabled_effects(cfg)
            for order in ([8, 2, 5], [0], [7]):
                some = change(frames[order], [names(9)[i] for i in order])
                assert torch.equal(some.frames, whole.frames[order]), enabled_effects(cfg)
                assert torch.equal(some.swapped, whole.swapped[order])
    finally:
        torch.set_num_threads(before)


def test_off_the_host_a_whole_batch_is_changed_at_once_and_its_parameters_travel_together(folder):
    change = randomizer(everything(folder), device=META).change
    counts = []
    for n in (5, 40):
        frames = torch.zeros(n, 3, 20, 28, dtype=torch.uint8, device=META)
        with Crossings():
            change(frames, names(n))  # images of the folders are brought there once
        with Crossings() as found:
            assert change(frames, names(n)).frames.shape == frames.shape
        assert (found.reads, found.lists) == ([], [])
        assert set(found.sent) == {"placement.py:_move_tensor _to_copy"}
        counts.append(len(found.sent))
    assert counts == [1, 1]


def test_the_same_name_gives_the_same_draws_and_others_give_others():
    ours = draw(0, "x", [(0, 1, 2)])
    assert torch.equal(draw(0, "x", [(0, 1, 3), (0, 1, 2)])[1:], ours)
    for other in (draw(1, "x", [(0, 1, 2)]), draw(0, "y", [(0, 1, 2)]), draw(0, "x", [(0, 1, 3)])):
        assert not (other == ours).any()


def test_draws_fill_their_ranges_and_no_two_are_the_same():
    u = draw(0, "x", names(2000))
    assert (u.shape, len(set(SLOTS))) == ((2000, len(SLOTS)), len(SLOTS))
    assert float((torch.corrcoef(u.T) - torch.eye(len(SLOTS))).abs().max()) < 0.1
    spread = around_zero(u, 0.4)
    assert -0.4 <= float(spread.min()) < -0.39 < 0.39 < float(spread.max()) < 0.4
    assert sorted(set(pick(u[:, 0], torch.arange(5)).tolist())) == [0, 1, 2, 3, 4]


def test_cameras_differ_and_those_not_named_are_left_alone():
    frames = np.full((2, 20, 28, 3), 100, dtype=np.uint8)
    obs = Observation({"base": frames, "wrist": frames.copy()}, np.zeros((2, 2), np.float32), ["go"] * 2)
    both = randomizer(DomainRandomizationConfig(brightness=0.3))(obs, names(2))
    assert not torch.equal(both.images["base"], both.images["wrist"])
    one = randomizer(DomainRandomizationConfig(brightness=0.3, cameras=["wrist"]))(obs, names(2))
    assert one.images["base"] is obs.images["base"]
    assert torch.equal(one.images["wrist"], both.images["wrist"])
    assert tuple(one.images["wrist"].shape) == (2, 20, 28, 3)
    assert one.images["wrist"].dtype == torch.uint8


def test_an_episode_keeps_its_draw_unless_every_decision_has_its_own():
    obs = observation(3)
    kept = randomizer(DomainRandomizationConfig(hue=40.0, noise=0.1))
    assert torch.equal(kept(obs, names(3), (0, 1)).images["base"], kept(obs, names(3), (0, 2)).images["base"])
    anew = randomizer(DomainRandomizationConfig(hue=40.0, noise=0.1, per="decision"))
    assert not torch.equal(anew(obs, names(3), (0, 1)).images["base"], anew(obs, names(3), (0, 2)).images["base"])


def test_rows_that_are_not_drawn_stay_as_they_are():
    cfg = DomainRandomizationConfig(brightness=0.5, noise=0.1, probability=0.5)
    frames = torch.full((40, 3, 20, 28), 120, dtype=torch.uint8)
    changed = randomizer(cfg).change(frames, names(40))
    same = (changed.frames == frames).flatten(1).all(1)
    assert torch.equal(same, ~changed.on)
    assert 8 < int(changed.on.sum()) < 32


def test_the_metrics_count_what_changed():
    change = randomizer(DomainRandomizationConfig(brightness=0.3, cameras=["base"]))
    obs = observation(6)
    out = change(obs, names(6))
    before, after = obs.images["base"].astype(int), out.images["base"].numpy().astype(int)
    scalars = change.scalars()
    assert scalars["randomization/mean_change"] == pytest.approx(np.abs(after - before).mean())
    assert scalars["randomization/changed_pixels"] == pytest.approx((after != before).any(-1).mean())
    assert set(scalars) == {"randomization/mean_change", "randomization/changed_pixels"}


@pytest.mark.parametrize(
    ("overlay", "brightness", "message"),
    [
        (False, 1e-3, r"domain_randomization\.brightness: on, but not one pixel has changed in 9 "),
        (True, 0.0, r"overlay: on, but no background was swapped in 9 .*overlay\.known_folder.*overlay=null"),
        (True, 0.5, r"overlay: on, but no background was swapped in 9 "),  # beside an effect that works
    ],
)
def test_an_effect_that_does_nothing_is_an_error_that_names_the_setting(folder, overlay, brightness, message):
    section = OverlayConfig(folder=str(folder), files=["3.png"], known_files=["0.png"]) if overlay else None
    change = randomizer(DomainRandomizationConfig(overlay=section, brightness=brightness))
    change(observation(3, cameras=("base",)), names(3))
    change.scalars()  # three draws may be an accident
    change(observation(9, cameras=("base",)), names(9))
    with pytest.raises(ConfigError, match=message):
        change.scalars()


def test_most_images_without_a_known_background_are_a_warning_that_comes_once(folder, caplog):
    overlay = OverlayConfig(folder=str(folder), files=["3.png"], known_files=["2.png"])
    change = randomizer(DomainRandomizationConfig(overlay=overlay))
    with Image.open(folder / "2.png") as image:
        known = np.asarray(image)
    images = observation(9, cameras=("base",), h=24, w=32).images["base"]
    images[:2] = known
    obs = Observation({"base": images}, np.zeros((9, 2), np.float32), ["go"] * 9)
    for _ in range(2):
        change(obs, names(9))
        scalars = change.scalars()
        assert scalars["randomization/overlay_missed"] == pytest.approx(7 / 9)
        assert scalars["randomization/overlay_pixels"] == pytest.approx(2 / 9)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["7 of 9 images keep their background"]


def test_no_draw_is_no_error():
    change = randomizer(DomainRandomizationConfig(brightness=0.5, probability=1e-9))
    change(observation(9), names(9))
    assert change.scalars() == {"randomization/changed_pixels": 0.0, "randomization/mean_change": 0.0}


def test_the_sheet_shows_originals_and_what_is_seen_per_camera_and_is_written_once(tmp_path):
    path = tmp_path / "new" / "sheet.png"
    change = randomizer(DomainRandomizationConfig(brightness=0.5), sheet=path)
    obs = observation(8, h=64, w=128)
    seen = change(obs, names(8))
    with Image.open(path) as image:
        page = np.asarray(image)
    lines = [18 + 68 * i for i in range(5)] + [18 + 68 * 5 + 16 + 68 * i for i in range(5)]
    assert page.shape == (2 * (16 + 5 * 68), 64 + 2 + 6 * 130, 3)
    for camera, start in (("base", 0), ("wrist", 5)):
        for k, frames in ((0, obs.images[camera]), (1, seen.images[camera].numpy())):
            for column in (0, 5):
                tile = page[lines[start + k] :, 66 + 130 * column :][:64, :128]
                assert np.array_equal(tile, frames[column]), (camera, k, column)
    path.unlink()
    change(obs, names(8))
    assert not path.exists()


def test_folders_that_cannot_be_used_are_named(folder, tmp_path):
    def build(**changes):
        section = replace(TextureConfig(folder=str(folder)), **changes)
        return randomizer(DomainRandomizationConfig(texture=section), assets=tmp_path)

    with pytest.raises(ConfigError, match=r"texture\.folder = .*nowhere: no such directory.*RLFT_ASSETS"):
        build(folder="nowhere")
    with pytest.raises(ConfigError, match=r"'9\.png' fits none of its 4 images"):
        build(files=["0.png", "9.png"])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("no image")
    with pytest.raises(ConfigError, match=r"a\.png: not an image"):
        build(folder="bad")


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
