"""gym-aloha behind the contract: what its adapter leaves out, its expert, and the same task by lerobot's factory."""

from dataclasses import replace

import numpy as np
import pytest
from renders_mujoco import needs_mujoco
from vec_env_factories import ALOHA

from rlft.types import DemoAttempt
from rlft_envs.errors import EnvSetupError
from rlft_envs.record import RecordSettings, record
from rlft_envs.simulator import build_single_env, simulator_of
from rlft_envs.task import make_expert

pytestmark = pytest.mark.simulator

WIDE = {"action_low": [-3.2], "action_high": [3.2], "success": "is_success"}
BLIND = replace(ALOHA, cameras=(), privileged=False, options={**ALOHA.options, **WIDE, "images": {}})
LEROBOT = replace(ALOHA, simulator="lerobot", env_id="aloha/AlohaTransferCube-v0", make_kwargs={}, privileged=False)
LEROBOT = replace(LEROBOT, state_terms=("observation.state",), options={**WIDE, "runs_past_end": True})


@pytest.fixture(autouse=True)
def _mujoco():
    needs_mujoco()


def test_the_expert_hands_the_cube_over():
    env = build_single_env(BLIND)
    done = [record(env, make_expert, DemoAttempt(n, n, n), RecordSettings(hold_steps=10)) for n in range(5)]
    assert [recording.outcome for recording in done] == ["success"] * 5
    assert max(len(recording.actions) for recording in done) <= 110


def test_steps_do_not_render(monkeypatch):
    env = build_single_env(ALOHA)
    env.reset(0)
    physics, drawn = env.env.unwrapped._env.physics, []
    render = physics.render
    monkeypatch.setattr(physics, "render", lambda **arguments: drawn.append(arguments) or render(**arguments))
    for _ in range(3):
        env.step(np.zeros(14, np.float32))
    assert drawn == []
    assert env.observe().images["top"].shape == (24, 32, 3)
    assert [(one["camera_id"], one["height"], one["width"]) for one in drawn] == [("top", 24, 32)]


def test_a_check_while_images_are_drawn_spoils_none():
    """A context that another one made current in this thread would leave the renderer drawing into nothing."""
    env = build_single_env(ALOHA)
    env.reset(0)
    before = env.observe().images["top"]
    simulator_of(ALOHA).check(ALOHA)
    np.testing.assert_array_equal(env.observe().images["top"], before)


def test_a_camera_that_the_scene_lacks():
    with pytest.raises(EnvSetupError, match=r"env\.options\.images = 'topp' is not known; did you mean top"):
        build_single_env(replace(ALOHA, options={**ALOHA.options, "images": {"top": "pixels.topp"}}))


def test_lerobots_factory_gives_the_same_episodes_under_lerobots_names():
    ours, theirs = build_single_env(ALOHA), build_single_env(LEROBOT)
    for env in (ours, theirs):
        env.reset(3)
        env.step(np.full(14, -0.5, np.float32))
    a, b = ours.observe(), theirs.observe()
    np.testing.assert_allclose(a.state, b.state, atol=1e-6)
    np.testing.assert_array_equal(a.images["top"], b.images["top"])
    assert theirs.spec.control_hz == 50.0
    assert make_expert(theirs).act().shape == (14,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_id": "alohaa"}, "did you mean aloha"),
        ({"make_kwargs": {"fpss": 3}}, r"env\.make_kwargs = \{'fpss': 3\} for aloha.*unexpected keyword"),
    ],
)
def test_what_lerobot_does_not_know_is_refused(changes, words):
    settings = replace(LEROBOT, **changes)
    with pytest.raises(EnvSetupError, match=words):
        simulator_of(settings).check(settings)
