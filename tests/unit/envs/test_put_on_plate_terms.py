"""Success, latched terms and image blends of PutOnPlateInScene25, by hand."""

import numpy as np
import torch

from rlft_tasks.put_on_plate.overlays import blend_box, blend_whole, boxes, overlay
from rlft_tasks.put_on_plate.terms import EpisodeRecord, Seen, on_target, upright_size

PLATE, CARROT = [0.11, 0.11, 0.006], [0.12, 0.032, 0.04]


def placed(dx, dz, force):
    source, target = torch.tensor([[[dx, 0.0, 0.87 + dz]], [[0.0, 0.0, 0.87]]])
    seen = Seen(source, target, source, torch.tensor([False]), torch.tensor([force]))
    return bool(on_target(seen, torch.tensor([CARROT]), torch.tensor([PLATE])))


def test_success_is_near_above_and_touching():
    assert placed(0.0, 0.02, 1.0)
    assert placed(0.0649, 0.02, 1.0)  # half the plate and 1 cm
    assert not placed(0.0651, 0.02, 1.0)
    assert not placed(0.0, -0.001, 1.0)
    assert placed(0.0, 0.0729, 1.0)  # both halves, 0.023 m, and 5 cm
    assert not placed(0.0, 0.0731, 1.0)
    assert not placed(0.0, 0.02, 0.03)
    assert placed(0.0, 0.02, 0.0301)


def test_a_turned_box_is_as_wide_as_its_corners():
    yaw = 0.7
    q = np.array([[np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]])
    found = upright_size(np.array([CARROT]), q)[0]
    corners = np.array([[sx * CARROT[0], sy * CARROT[1]] for sx in (-0.5, 0.5) for sy in (-0.5, 0.5)])
    R = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    np.testing.assert_allclose(found, [*np.ptp(corners @ R.T, axis=0), CARROT[2]], atol=1e-6)
    on_end = np.array([[np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0]])  # x becomes z
    np.testing.assert_allclose(upright_size(np.array([CARROT]), on_end)[0], [0.04, 0.032, 0.12], atol=1e-6)


def flags(*values):
    return torch.tensor(values, dtype=torch.bool)


def test_latched_terms_stay_and_steps_count_once():
    record = EpisodeRecord(2, torch.device("cpu"))
    record.reset(torch.tensor([0, 1]))
    for step in range(1, 5):
        for _ in range(3):  # looked at three times
            terms = record.update(torch.tensor([step, step]), flags(True, step > 2), flags(False, step == 2))
    assert terms["is_src_obj_grasped"].tolist() == [True, True]
    assert terms["consecutive_grasp"].tolist() == [False, False]  # four steps, not twelve
    assert terms["src_ever_on_target"].tolist() == [False, True]
    assert terms["src_on_target"].tolist() == [False, False]
    terms = record.update(torch.tensor([5, 5]), flags(True, False), flags(False, False))
    assert terms["consecutive_grasp"].tolist() == terms["consecutive_grasp_now"].tolist() == [True, False]
    terms = record.update(torch.tensor([6, 6]), flags(False, True), flags(False, False))
    assert terms["consecutive_grasp"].tolist() == [True, False]
    assert terms["consecutive_grasp_now"].tolist() == [False, False]
    assert terms["grasped_now"].tolist() == [False, True]


def test_a_reset_forgets_one_environment_only():
    record = EpisodeRecord(3, torch.device("cpu"))
    for step in range(1, 6):
        record.update(torch.full((3,), step), flags(True, True, True), flags(True, True, True))
    record.reset(torch.tensor([1]))
    terms = record.update(torch.tensor([5, 0, 5]), flags(False, False, False), flags(False, False, False))
    for name in ("is_src_obj_grasped", "consecutive_grasp", "src_ever_on_target"):
        assert terms[name].tolist() == [True, False, True]


def images(E=2, h=6, w=8):
    rng = np.random.default_rng(0)
    rgb, background = (torch.from_numpy(rng.integers(0, 256, (E, h, w, 3), dtype=np.uint8)) for _ in range(2))
    foreground = torch.zeros(E, h, w, dtype=torch.bool)
    foreground[0, 2:5, 3:7] = True
    foreground[0, 3, 4] = False
    return rgb, background, foreground


def test_the_photograph_is_where_nothing_simulated_is():
    rgb, background, foreground = images()
    out = overlay(rgb, background, foreground)
    assert torch.equal(out[foreground], rgb[foreground])
    assert torch.equal(out[~foreground], background[~foreground])
    assert [edge[0].item() for edge in boxes(foreground)] == [2, 5, 3, 7]


def test_a_texture_is_stretched_to_the_foreground_and_blended_into_it_alone():
    rgb, background, foreground = images()
    texture = torch.zeros_like(rgb)
    texture[..., 0] = 200
    texture[:, 3:, :, 1] = 100  # its lower half
    out = blend_box(rgb, background, foreground, texture, torch.tensor([0.3, 0.3]))
    assert torch.equal(out[~foreground], background[~foreground])
    top, bottom = rgb[0, 2, 3].float(), rgb[0, 4, 3].float()
    expected = [0.7 * top + 0.3 * torch.tensor([200.0, 0, 0]), 0.7 * bottom + 0.3 * torch.tensor([200.0, 100, 0])]
    assert torch.equal(out[0, 2, 3], expected[0].to(torch.uint8))
    assert torch.equal(out[0, 4, 3], expected[1].to(torch.uint8))
    none = blend_box(rgb, background, foreground, texture, torch.zeros(2))
    assert torch.equal(none, overlay(rgb, background, foreground))


def test_a_texture_over_everything_is_seen_through_a_window_that_follows_the_foreground():
    rgb, background, foreground = images()
    rng = np.random.default_rng(1)
    texture = torch.from_numpy(rng.integers(0, 256, (2, 12, 16, 3), dtype=np.uint8))
    out = blend_whole(rgb, background, foreground, texture, torch.tensor([0.5, 0.5]))
    below = overlay(rgb, background, foreground)
    window = texture[0, 3 : 3 + 6, 4 : 4 + 8]  # the middle of rows 2..4 and columns 3..6
    assert torch.equal(out[0], (0.5 * below[0] + 0.5 * window).to(torch.uint8))
    assert torch.equal(out[1], below[1])  # nothing simulated is seen there


def test_environments_do_not_mix():
    rgb, background, foreground = images()
    foreground[1, 0:2, 0:3] = True
    texture = torch.full_like(rgb, 77)
    both = blend_box(rgb, background, foreground, texture, torch.tensor([0.3, 0.5]))
    for e in range(2):
        one = slice(e, e + 1)
        alone = blend_box(rgb[one], background[one], foreground[one], texture[one], torch.tensor([0.3, 0.5])[one])
        assert torch.equal(both[one], alone)


def stretched_one_by_one(rgb, background, foreground, texture, mix):
    """The published way: torch's own resize to each environment's box."""
    out = overlay(rgb, background, foreground)
    for e in foreground.any(dim=2).any(dim=1).nonzero()[:, 0].tolist():
        rows, columns = (foreground[e].any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        size = [part.stop - part.start for part in box]
        texture_e = texture[e].permute(2, 0, 1)[None].float()
        resized = torch.nn.functional.interpolate(texture_e, size=size, mode="bilinear")[0].permute(1, 2, 0)
        blended = resized * mix[e] + rgb[e][box] * (1 - mix[e])
        out[e][box] = torch.where(foreground[e][box][..., None], blended.clamp(0, 255).to(torch.uint8), out[e][box])
    return out


def test_all_environments_at_once_look_as_resized_one_by_one():
    generator = torch.Generator().manual_seed(0)
    E, h, w = 12, 60, 80
    rgb, background, texture = torch.randint(256, (3, E, h, w, 3), generator=generator).to(torch.uint8)
    foreground = torch.zeros(E, h, w, dtype=torch.bool)
    for e in range(1, E):  # nothing is seen in the first; the second's box is one pixel, the third's the image
        top, left = int(torch.randint(h, (), generator=generator)), int(torch.randint(w, (), generator=generator))
        size = {1: (1, 1), 2: (h, w)}.get(e, (h // 2, w // 3))
        top, left = (0, 0) if e == 2 else (top, left)
        foreground[e, top : top + size[0], left : left + size[1]] = True
    foreground[2:] &= torch.rand(E - 2, h, w, generator=generator) < 0.8
    mix = torch.rand(E, generator=generator)
    expected = stretched_one_by_one(rgb, background, foreground, texture, mix).int()
    different = (blend_box(rgb, background, foreground, texture, mix).int() - expected).abs()
    assert different.max() <= 1  # a fraction that two orders of summation round to either side of a whole number
    assert (different > 0).float().mean() < 1e-4


def test_a_backdrop_blends_blocks_of_environments(tmp_path):
    from PIL import Image

    from rlft_tasks.put_on_plate.library import Table
    from rlft_tasks.put_on_plate.overlays import BLOCK, Backdrop
    from rlft_tasks.put_on_plate.variants import PREFIX, VARIANTS

    E, h, w = BLOCK + 2, 6, 8
    rng = np.random.default_rng(0)
    tables = []
    for k in range(3):
        for kind in ("image", "texture"):
            Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(tmp_path / f"{kind}{k}.png")
        tables.append(Table(str(k), str(k), tmp_path / f"image{k}.png", tmp_path / f"texture{k}.png", 0.5 + 0.1 * k))
    backdrop = Backdrop(VARIANTS[f"{PREFIX}VisionTexture03-v1"], E, h, w, torch.device("cpu"))
    backdrop.show(range(E), [tables[0]] * E, [tables[1]] * E)
    backdrop.show([E - 1, 0], [tables[1], tables[2]], [tables[2], tables[0]])
    rgb = torch.from_numpy(rng.integers(0, 256, (E, h, w, 3), dtype=np.uint8))
    foreground = torch.from_numpy(rng.random((E, h, w)) < 0.5)
    out = backdrop.compose(rgb, foreground)
    for e, table, texture in ((0, 2, 0), (1, 0, 1), (E - 1, 1, 2)):
        files = (tables[table].image, tables[texture].texture)
        shown = [torch.from_numpy(np.array(Image.open(file)))[None] for file in files]
        one, mix = slice(e, e + 1), torch.tensor([0.3 * tables[texture].mix])
        assert torch.equal(out[one], blend_box(rgb[one], shown[0], foreground[one], shown[1], mix))
