"""Frames and states to model inputs: exact where nothing is to be done, refused where nothing can be guessed."""

from functools import cache

import numpy as np
import pytest
import torch

from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.policy.base import denormalize, normalize
from rlft.policy.images import resize_with_pad, stack_cameras
from rlft.policy.pi0.policy import state_prompt
from rlft.policy.pretrained import build_policy
from rlft.types import Observation


def make_frames(n=2, height=56, width=56, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@cache
def make_transform(cameras=("front",), kind="small"):
    stats = NormStats((1.0, 2.0), (2.0, 4.0), (0.0,), (1.0,), "Env-v1", "pd", cameras)
    return build_policy(ModelConfig(kind), stats, horizon=2, device=torch.device("cpu")).transform


def make_observation(frames, state=((1.0, 6.0), (3.0, 2.0))):
    return Observation({"front": frames}, np.array(state, np.float32), ["Push the cube.", "Push the cube."])


def test_frames_of_the_models_size_pass_through_bit_equal():
    frames = make_frames()
    images = stack_cameras({"front": frames}, ["front"], 56, rows=2)
    assert images.dtype == torch.uint8
    assert np.array_equal(images[:, 0].numpy(), frames.transpose(0, 3, 1, 2))


def test_cameras_come_in_the_policys_order_and_others_are_left_out():
    images = {"b": make_frames(seed=1), "a": make_frames(seed=2), "c": make_frames(seed=3)}
    stacked = stack_cameras(images, ["a", "b"], 56, rows=2)
    assert stacked.shape == (2, 2, 3, 56, 56)
    assert np.array_equal(stacked[:, 0].numpy(), images["a"].transpose(0, 3, 1, 2))


def test_no_camera_gives_an_empty_axis():
    assert stack_cameras({}, [], 56, rows=2).shape == (2, 0, 3, 56, 56)


@pytest.mark.parametrize(("height", "width"), [(64, 128), (128, 64), (28, 56)])
def test_other_shapes_are_fitted_without_distortion_and_padded_with_black(height, width):
    frames = torch.full((1, 3, height, width), 200, dtype=torch.uint8)
    fitted = resize_with_pad(frames, 56)
    assert fitted.shape == (1, 3, 56, 56)
    image = fitted[0, 0] > 0
    assert (fitted[0, 0][image] == 200).all()
    rows, columns = image.any(dim=1).sum(), image.any(dim=0).sum()
    assert (int(rows), int(columns)) == (56 * height // max(height, width), 56 * width // max(height, width))
    assert torch.equal(image, image.flip(0))  # centred
    assert torch.equal(image, image.flip(1))


def test_shrinking_is_antialiased():
    stripes = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    stripes[..., ::2] = 255
    inside = resize_with_pad(stripes, 56)[..., 2:-2].float()
    assert (inside - 127.5).abs().max() < 4  # without antialiasing the stripes alias to black or white


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (make_frames().astype(np.float32), "Floats are refused"),
        (make_frames().astype(np.float32) / 255, "Floats are refused"),
        (make_frames().transpose(0, 3, 1, 2), "channels first"),
        (make_frames()[0], r"wanted uint8 \[2, height, width, 3\]"),
        (make_frames(n=3), r"got uint8 \[3, 56, 56, 3\]"),
        (np.zeros((2, 56, 56, 4), np.uint8), r"\[2, 56, 56, 4\]"),
    ],
)
def test_frames_of_another_type_or_layout_are_refused(frames, message):
    with pytest.raises(ValueError, match=rf"'front'.*{message}"):
        make_transform()(make_observation(frames))


def test_a_missing_camera_is_named_with_what_is_there():
    with pytest.raises(ValueError, match=r"\['wrist'\] are missing.*\['front'\]"):
        make_transform(cameras=("front", "wrist"))(make_observation(make_frames()))


def test_state_is_normalised_and_padded():
    inputs = make_transform()(make_observation(make_frames()))
    assert inputs.state.shape == (2, 32)
    assert inputs.state[:, :2].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert not inputs.state[:, 2:].any()


@pytest.mark.parametrize("state", [((1.0,), (2.0,)), ((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))])
def test_a_state_of_another_width_is_refused(state):
    with pytest.raises(ValueError, match=r"observation\.state has shape .* \[n, 2\]"):
        make_transform()(make_observation(make_frames(), state))


def test_instructions_must_match_the_rows():
    obs = make_observation(make_frames())
    obs.task.pop()
    with pytest.raises(ValueError, match=r"observation\.task has 1 entries for 2 rows"):
        make_transform()(obs)


def test_recorded_and_live_observations_give_the_same_inputs():
    """The simulator hands numpy rows; a dataset hands tensors, in batches of another size."""
    frames, state = make_frames(4), np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    task = ["Push the cube."] * 4
    transform = make_transform()
    live = transform(Observation({"front": frames}, state, task))
    recorded = transform(Observation({"front": torch.tensor(frames)}, torch.tensor(state), task))
    single = transform(Observation({"front": frames[2:3]}, state[2:3], task[:1]))
    for name in ("images", "tokens", "token_mask", "state"):
        assert torch.equal(getattr(live, name), getattr(recorded, name)), name
        assert torch.equal(getattr(live, name)[2:3], getattr(single, name)), name


def test_normalise_and_back():
    x = torch.randn(5, 2)
    there = normalize(x, (1.0, 2.0), (2.0, 4.0))
    torch.testing.assert_close(denormalize(there, (1.0, 2.0), (2.0, 4.0)), x)


def test_pi05_prompt_holds_the_state_clipped_into_the_bins():
    prompt = state_prompt("push_the\ncube ", np.array([-2.0, -1.0, 0.0, 0.999, 5.0]))
    assert prompt == "Task: push the cube, State: 0 0 128 255 255;\nAction: "


def test_pi05_tokens_follow_the_state():
    transform = make_transform(kind="small_pi05")
    inputs = transform(make_observation(make_frames()))
    assert not torch.equal(inputs.tokens[0], inputs.tokens[1])


def test_pi05_prompts_are_as_wide_as_the_longest_state_would_make_them():
    transform = make_transform(kind="small_pi05")
    widths = set()
    for state in ((-5.0, -5.0), (0.4, 0.9), (5.0, 5.0)):
        inputs = transform(make_observation(make_frames(), (state, state)))
        widths.add(inputs.tokens.shape[1])
        assert bool(inputs.token_mask.all()) is (state == (5.0, 5.0))
    assert len(widths) == 1
