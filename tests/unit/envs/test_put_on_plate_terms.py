"""Success, latched terms and picture blends of PutOnPlateInScene25, by hand."""

import numpy as np
import torch

from rlft_envs.put_on_plate.overlays import blend_box, blend_whole, boxes, overlay
from rlft_envs.put_on_plate.terms import EpisodeRecord, on_target, upright_size

PLATE, CARROT = [0.11, 0.11, 0.006], [0.12, 0.032, 0.04]


def placed(dx, dz, force):
    source = torch.tensor([[dx, 0.0, 0.87 + dz]])
    sizes = torch.tensor([CARROT]), torch.tensor([PLATE])
    return bool(on_target(source, torch.tensor([[0.0, 0.0, 0.87]]), *sizes, torch.tensor([force])))


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
    q = torch.tensor([[np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]], dtype=torch.float32)
    found = upright_size(torch.tensor([CARROT]), q)[0].numpy()
    corners = np.array([[sx * CARROT[0], sy * CARROT[1]] for sx in (-0.5, 0.5) for sy in (-0.5, 0.5)])
    R = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    np.testing.assert_allclose(found, [*np.ptp(corners @ R.T, axis=0), CARROT[2]], atol=1e-6)
    on_end = torch.tensor([[np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0]], dtype=torch.float32)  # x becomes z
    np.testing.assert_allclose(upright_size(torch.tensor([CARROT]), on_end)[0], [0.04, 0.032, 0.12], atol=1e-6)


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


def pictures(E=2, h=6, w=8):
    rng = np.random.default_rng(0)
    rgb, background = (torch.from_numpy(rng.integers(0, 256, (E, h, w, 3), dtype=np.uint8)) for _ in range(2))
    foreground = torch.zeros(E, h, w, dtype=torch.bool)
    foreground[0, 2:5, 3:7] = True
    foreground[0, 3, 4] = False
    return rgb, background, foreground


def test_the_photograph_is_where_nothing_simulated_is():
    rgb, background, foreground = pictures()
    out = overlay(rgb, background, foreground)
    assert torch.equal(out[foreground], rgb[foreground])
    assert torch.equal(out[~foreground], background[~foreground])
    assert boxes(foreground) == [(0, (2, 5, 3, 7))]


def test_a_texture_is_stretched_to_the_foreground_and_blended_into_it_alone():
    rgb, background, foreground = pictures()
    texture = torch.zeros_like(rgb)
    texture[..., 0] = 200
    texture[:, 3:, :, 1] = 100  # its lower half
    out = blend_box(rgb, background, foreground, texture, torch.tensor([0.3, 0.3]))
    assert torch.equal(out[~foreground], background[~foreground])
    top, bottom = rgb[0, 2, 3].float(), rgb[0, 4, 3].float()
    expected = [0.7 * top + 0.3 * torch.tensor([200.0, 0, 0]), 0.7 * bottom + 0.3 * torch.tensor([200.0, 100, 0])]
    assert torch.equal(out[0, 2, 3], expected[0].to(torch.uint8))
    assert torch.equal(out[0, 4, 3], expected[1].to(torch.uint8))
    assert torch.equal(
        blend_box(rgb, background, foreground, texture, torch.zeros(2)), overlay(rgb, background, foreground)
    )


def test_a_texture_over_everything_is_seen_through_a_window_that_follows_the_foreground():
    rgb, background, foreground = pictures()
    rng = np.random.default_rng(1)
    texture = torch.from_numpy(rng.integers(0, 256, (2, 12, 16, 3), dtype=np.uint8))
    out = blend_whole(rgb, background, foreground, texture, torch.tensor([0.5, 0.5]))
    below = overlay(rgb, background, foreground)
    window = texture[0, 3 : 3 + 6, 4 : 4 + 8]  # the middle of rows 2..4 and columns 3..6
    assert torch.equal(out[0], (0.5 * below[0] + 0.5 * window).to(torch.uint8))
    assert torch.equal(out[1], below[1])  # nothing simulated is seen there


def test_environments_do_not_mix():
    rgb, background, foreground = pictures()
    foreground[1, 0:2, 0:3] = True
    texture = torch.full_like(rgb, 77)
    both = blend_box(rgb, background, foreground, texture, torch.tensor([0.3, 0.5]))
    for e in range(2):
        one = slice(e, e + 1)
        alone = blend_box(rgb[one], background[one], foreground[one], texture[one], torch.tensor([0.3, 0.5])[one])
        assert torch.equal(both[one], alone)
