"""Any Gymnasium environment: what the task file names is found, and what cannot be used is refused in words."""

import os
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from rlft.types import CameraSettings, DemoAttempt, EnvSettings, RewardSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.gym.reading import look_up, read_image
from rlft_envs.record import RecordSettings, record
from rlft_envs.simulator import build_single_env, make_vec_env, simulator_of
from rlft_envs.task import make_expert

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
CAMERA = CameraSettings("front", 16, 16)
SLIDER = EnvSettings("gymnasium", "their_gym:Slider-v0", 1, 12, "native", (CAMERA,), ("robot.at", "mark"))
SLIDER = replace(
    SLIDER,
    reward=RewardSettings("dense"),
    options={"images": {"front": "view.front.rgb"}, "action_low": [-1.0], "action_high": [1.0, 1.0]},
)
FLAT = replace(
    SLIDER,
    state_terms=("observation",),
    make_kwargs={"observation": "flat"},
    options={"images": {"front": "render"}, "success": "reward >= 0.8", "runs_past_end": True},
)


@pytest.fixture(autouse=True)
def _their_package(monkeypatch):
    monkeypatch.syspath_prepend(str(PLUGINS))
    paths = [str(PLUGINS), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # of worker processes


def options(settings=SLIDER, **changes):
    return replace(settings, options={**settings.options, **changes})


def broken(how, settings=SLIDER):
    return replace(settings, make_kwargs={**settings.make_kwargs, "broken": how})


def test_nested_keys_float_images_and_bounds_of_the_task_file():
    env = build_single_env(SLIDER)
    env.reset(3)
    inner, seen = env.env.unwrapped, env.observe()
    np.testing.assert_array_equal(seen.state, np.concatenate([inner.at, inner.mark]).astype(np.float32))
    assert seen.images["front"].shape == (16, 16, 3)
    assert seen.images["front"].dtype == np.uint8
    full = np.rint(np.moveaxis(inner._draw(), 0, -1) * 255)
    np.testing.assert_allclose(seen.images["front"].mean((0, 1)), full.mean((0, 1)), atol=1.0)
    assert env.human_view().shape == (64, 64, 3)
    assert (env.spec.action_low, env.spec.action_high) == ((-1.0, -1.0), (1.0, 1.0))
    assert (env.spec.state_dim, env.spec.control_hz, env.spec.privileged_dim) == (4, 10.0, 0)
    assert env.instruction == "slide the bar to the mark"
    before = inner.at.copy()
    env.step(np.array([5.0, -5.0], np.float32))  # clipped, and in the space's own type
    np.testing.assert_allclose(inner.at, np.clip(before + np.array([0.1, -0.1]), -1, 1))


def test_our_time_limit_and_not_the_registered_one():
    env = build_single_env(SLIDER)
    env.reset(0)
    ends = [env.step(np.array([0.0, 0.0], np.float32)).truncated for _ in range(12)]
    assert ends == [False] * 11 + [True]
    assert gymnasium.spec("Slider-v0").max_episode_steps == 5


def test_the_rewards_are_the_environments_own():
    for mode, wanted in (("dense", lambda r: r), ("dense_difference", lambda r: np.diff(r, prepend=0.0))):
        env = build_single_env(replace(SLIDER, reward=RewardSettings(mode, 1.0, 0.0)))
        env.reset(1)
        got, own = [], []
        for _ in range(3):
            got.append(env.step(np.array([0.1, 0.1], np.float32)).reward)
            own.append(1.0 - env.env.unwrapped._distance())
        np.testing.assert_allclose(got, wanted(np.array(own)), rtol=1e-6)


@pytest.mark.parametrize("settings", [SLIDER, options(success="terminated"), FLAT], ids=["info", "end", "reward"])
def test_success_ends_the_episode(settings):
    env = build_single_env(settings)
    env.reset(5)
    expert, result = make_expert(env), None
    while not (result and (result.terminated or result.truncated)):
        result = env.step(expert.act())
    assert result.success
    assert result.terminated
    if not settings.options.get("runs_past_end"):
        with pytest.raises(RuntimeError, match=r"must not be stepped on: collect\.success_hold_steps must be 0"):
            env.step(expert.act())


def test_it_can_fail_and_be_cut_off():
    for how, direction, terminated in (("fails", 1.0, True), ("cuts", -1.0, False)):
        env = build_single_env(replace(broken(how), max_episode_steps=99))
        env.reset(7)
        env.env.unwrapped.mark = np.array([-direction, 0.0])
        result = env.step(np.zeros(2, np.float32))
        while not (result.terminated or result.truncated):
            result = env.step(np.array([direction, 0.0], np.float32))
        assert (result.terminated, result.truncated, result.success) == (terminated, not terminated, False)
        assert env.elapsed < 25


def test_demonstrations_are_recorded():
    env = build_single_env(SLIDER)
    done = record(env, make_expert, DemoAttempt(0, 4, 0), RecordSettings(hold_steps=0))
    assert done.outcome == "success"
    held = record(env, make_expert, DemoAttempt(0, 4, 0), RecordSettings(hold_steps=2))
    assert held.outcome == "simulator_error"
    assert "collect.success_hold_steps must be 0" in held.message
    past = build_single_env(options(runs_past_end=True))
    assert record(past, make_expert, DemoAttempt(0, 4, 0), RecordSettings(hold_steps=2)).outcome == "success"


@pytest.mark.parametrize("settings", [replace(SLIDER, env_id="their_gym:SliderOnDemand-v0"), FLAT], ids=["", "flat"])
def test_images_are_rendered_once_per_chunk_where_the_environment_lets_it(settings):
    env = make_vec_env(settings)
    env.reset([0], [8])
    inner = env._links[0].envs[0].env
    drawn = []
    target, name = (inner, "_draw") if settings is not FLAT else (inner.unwrapped, "render")
    original = getattr(target, name)
    setattr(target, name, lambda: drawn.append(1) or original())
    step = env.step_chunk(np.full((1, 5, 2), 0.01, np.float32))
    assert step.n_executed.tolist() == [5]
    assert len(drawn) == 1


def test_privileged_state_and_what_stands_in_info():
    env = build_single_env(replace(options(privileged=["mark", "info.where"]), privileged=True))
    env.reset(0)
    np.testing.assert_array_equal(env.observe().privileged, np.tile(env.env.unwrapped.mark, 2).astype(np.float32))


def test_workers_run_it():
    with_worker = make_vec_env(replace(SLIDER, num_workers=1, num_envs=2))
    alone = make_vec_env(replace(SLIDER, num_envs=2))
    for env in (with_worker, alone):
        env.reset([0, 1], [3, 4])
    a, b = (env.step_chunk(np.full((2, 3, 2), 0.5, np.float32)) for env in (with_worker, alone))
    np.testing.assert_array_equal(a.obs.state, b.obs.state)
    np.testing.assert_array_equal(a.obs.images["front"], b.obs.images["front"])
    assert a.obs.task == b.obs.task
    with_worker.close()
    alone.close()


REFUSED = [
    (replace(SLIDER, control_mode="pd_ee_delta_pos"), r"env\.control_mode = 'pd_ee_delta_pos': must be native"),
    (replace(SLIDER, robot="panda"), r"env\.robot = 'panda': must be null"),
    (replace(SLIDER, shader="rt"), r"env\.shader = 'rt'"),
    (replace(SLIDER, render_backend="cuda"), r"sim\.render_backend = 'cuda'.*MUJOCO_GL"),
    (replace(SLIDER, state_terms=()), r"env\.state_terms = \[\]"),
    (replace(SLIDER, privileged=True), r"env\.options\.privileged, or use critic\.inputs=features"),
    (replace(SLIDER, episode_ends_on_success=False), r"episode_ends_on_success = false.*runs_past_end"),
    (replace(SLIDER, cameras=(replace(CAMERA, fov=1.0),)), r"env\.cameras \['front'\]: take a name and a size"),
    (options(images={"wrist": "view.front.rgb"}), r"env\.options\.images names \['wrist'\]"),
    (options(imagse={}), r"env\.options = 'imagse' is not known; did you mean images"),
    (options(success=3), r"env\.options\.success = 3: Input should be a valid string"),
    (options(action_low=["a"]), r"env\.options\.action_low\.0 = 'a': Input should be a valid number"),
    (options(control_hz=0), r"env\.options\.control_hz = 0.*must be above 0"),
    (options(success="reward >= much"), r"env\.options\.success = 'reward >= much': must end with a number"),
    (replace(SLIDER, env_id="Slider-v0x"), r"env\.id = 'Slider-v0x'.*named as package\.module:"),
    (replace(SLIDER, env_id="not_there:Slider-v0"), "not_there cannot be imported"),
]
FOUND_IN_BUILDING = [
    (options(action_low=[]), r"action_low must be given: the action space of .* no bound in dimensions \[0, 1\]"),
    (options(action_high=[1.0] * 3), r"env\.options\.action_high has 3 numbers; give 2"),
    (options(action_high=[-1.0]), r"action_low = .* is not below"),
    (options(images={"front": "view"}), "three axes"),
    (options(images={"front": "view.forn.rgb"}), r"did you mean view\.front\.rgb"),
    (options(success="solved"), r"env\.options\.success = 'solved' is not known; allowed: is_success, where"),
    (replace(SLIDER, state_terms=("robot.name",)), r"env\.state_terms: 'robot\.name' holds str, not numbers"),
    (replace(SLIDER, cameras=(replace(CAMERA, width=32),)), r"image is 64 x 64, env\.cameras asks for 16 x 32"),
    (broken("bytes"), r"floats from 51 to 255; give floats in \[0, 1\], or uint8"),
    (broken("gray"), r"is float32 \[1, 64, 64\]; an RGB image has three axes"),
    (broken("wide"), r"image is 64 x 128.*aspect: 2 without"),
    (broken("silent"), r"env\.options\.success = 'is_success' is not known"),
    (broken("unseeded"), r"reset\(seed=0\) gave two different episodes"),
    (broken("discrete"), r"takes actions in Discrete\(3\); a flow policy needs a Box"),
    (broken("matrix"), "a flow policy needs a Box"),
    (broken("rate"), r"env\.options\.control_hz must be given"),
    (replace(SLIDER, make_kwargs={"size": 3}), r"make_kwargs = \{'size': 3\} cannot be made: TypeError"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED, ids=lambda x: None if isinstance(x, str) else "")
def test_what_cannot_be_used_is_refused_before_anything_is_built(settings, words):
    with pytest.raises(EnvSetupError, match=words):
        simulator_of(settings).check(settings)


@pytest.mark.parametrize(("settings", "words"), FOUND_IN_BUILDING, ids=lambda x: None if isinstance(x, str) else "")
def test_what_only_the_environment_can_tell_is_refused_in_building(settings, words):
    with pytest.raises(EnvSetupError, match=words):
        build_single_env(settings)


def test_without_an_instruction_it_is_asked_for():
    nameless = replace(SLIDER, env_id="their_gym:SliderNameless-v0")
    with pytest.raises(EnvSetupError, match=r"env\.instruction must be given"):
        build_single_env(nameless)
    assert build_single_env(replace(nameless, instruction="do it")).instruction == "do it"


def test_a_registered_environment_without_images():
    words = {"instruction": "swing up", "options": {"success": "reward >= 0"}}
    pendulum = replace(FLAT, env_id="Pendulum-v1", cameras=(), make_kwargs={}, **words)
    simulator_of(pendulum).check(pendulum)
    env = build_single_env(pendulum)
    assert (env.spec.action_low, env.spec.state_dim, env.spec.control_hz) == ((-2.0,), 3, 30.0)
    env.reset(1)
    assert env.step(np.ones(1, np.float32)).reward < 0
    with pytest.raises(EnvSetupError, match=r"env\.options\.human_view must be given to make videos"):
        env.human_view()
    with pytest.raises(EnvSetupError, match="has no GPU physics"):
        make_vec_env(replace(pendulum, sim_backend="gpu"))


def test_names_may_hold_dots_themselves():
    tree = {"a": {"b.c": 1}, "a.b": {"d": 2}}
    assert look_up(tree, "a.b.c", "x") == 1
    assert look_up(tree, "a.b.d", "x") == 2
    with pytest.raises(EnvSetupError, match=r"x = 'a\.c' is not known"):
        look_up(tree, "a.c", "x")


@pytest.mark.parametrize("value", [np.zeros((8, 8, 3), np.int64), np.full((8, 8, 3), np.nan), np.zeros((8, 8))])
def test_what_is_no_image(value):
    with pytest.raises(EnvSetupError, match="camera"):
        read_image(value, "camera 'x'")
