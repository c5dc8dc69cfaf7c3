"""The VecEnv contract, proved on every implementation of it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from solutions import towards_success
from vec_env_factories import FAMILY, MUJOCO, SIMULATORS, TIME_LIMIT, TOYS, A, E

from rlft.types import VecEnv
from rlft_envs.simulator import build_single_env

SEEDS = [11, 12, 13, 14]


def array(x):
    return np.asarray(x)


def random_actions(env, seed, scale=0.3):
    rng = np.random.default_rng(seed)
    return (scale * rng.uniform(-1, 1, (E, A, env.spec.act_dim))).astype(np.float32)


def flat(obs, i):
    """One environment's observation as bytes-comparable arrays."""
    return [*(array(image)[i] for image in obs.images.values()), array(obs.state)[i], array(obs.privileged)[i]]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def rollout(env, settings, chunks, solvers=()):
    """Actions that solve the task in some environments and idle in the others; returns the actions and the steps."""
    obs = env.reset(range(E), SEEDS)
    taken, steps = [], []
    for k in range(chunks):
        actions = np.zeros((E, A, env.spec.act_dim), np.float32)
        for i in solvers:
            actions[i] = towards_success(settings, SEEDS[i], k, array(obs.state)[i], env.spec.act_dim)
        steps.append(env.step_chunk(actions))
        taken.append(actions)
        obs = steps[-1].obs
    return taken, steps


def test_shapes_and_types(env, factory):
    assert isinstance(env, VecEnv)
    spec = env.spec
    assert spec.num_envs == E
    assert spec.cameras == factory.settings.cameras
    assert spec.max_episode_steps == TIME_LIMIT
    assert spec.control_hz == factory.control_hz
    obs = env.reset([2, 0], [5, 6])
    step = env.reset(range(E), SEEDS) and env.step_chunk(random_actions(env, 0))
    for n, o in ((2, obs), (E, step.obs)):
        for camera in spec.cameras:
            image = array(o.images[camera.name])
            assert image.shape == (n, camera.height, camera.width, 3)
            assert image.dtype == np.uint8
            assert image.std() > 1  # something is drawn
        assert array(o.state).shape == (n, spec.state_dim)
        assert array(o.state).dtype == np.float32
        assert array(o.privileged).shape == (n, spec.privileged_dim)
        assert array(o.privileged).dtype == np.float32
        assert len(o.task) == n
        assert all(o.task)
    assert array(step.rewards).shape == (E, A)
    assert array(step.rewards).dtype == np.float32
    assert array(step.n_executed).dtype == np.int64
    for name in ("terminated", "truncated", "success", "success_now", "invalid"):
        flags = array(getattr(step, name))
        assert flags.shape == (E,)
        assert flags.dtype == bool


def test_same_seed_same_episode_whatever_ran_before(env, factory):
    solvers = (0, 1)
    _, first = rollout(env, factory.settings, 4, solvers)
    env.reset(range(E), [91, 92, 93, 94])
    for k in range(3):
        env.step_chunk(random_actions(env, k, scale=1.0))
    _, second = rollout(env, factory.settings, 4, solvers)
    for a, b in zip(first, second):
        assert np.array_equal(array(a.rewards), array(b.rewards))
        assert all(same(flat(a.obs, i), flat(b.obs, i)) for i in range(E))


def test_a_seed_is_one_episode_in_any_order_of_any_slots(env):
    straight = env.reset([0, 1, 2, 3], SEEDS)
    assert not same(flat(straight, 0), flat(straight, 1))
    shuffled = env.reset([3, 0], [SEEDS[3], SEEDS[0]])
    assert same(flat(shuffled, 0), flat(straight, 3))
    assert same(flat(shuffled, 1), flat(straight, 0))
    a = env.reset([0], [77])
    b = env.reset([3], [77])
    assert np.array_equal(array(a.state)[0], array(b.state)[0])
    assert np.array_equal(array(a.privileged)[0], array(b.privileged)[0])


@pytest.fixture(scope="module")
def reference():
    """Single environments, stepped one action at a time: what the chunks are checked against."""
    built = {}

    def get(settings):
        settings = replace(settings, num_workers=0, sim_backend="cpu")
        key = (settings.env_id, settings.control_mode)
        if key not in built:
            built[key] = build_single_env(settings)
        return built[key]

    yield get
    for single in built.values():
        single.close()


def test_chunks_equal_single_steps_up_to_the_true_final_observation(env, factory, reference):
    """Environments 0, 1 terminate by success and 2, 3 by the time limit, each inside a chunk."""
    single = reference(factory.settings)
    actions, steps = rollout(env, factory.settings, 8, solvers=(0, 1))
    last = steps[-1]
    assert array(last.terminated).tolist() == [True, True, False, False]
    assert array(last.truncated).tolist() == [False, False, True, True]
    assert array(last.success).tolist() == [True, True, False, False]
    for i in range(E):
        single.reset(SEEDS[i])
        ended = False
        for chunk, step in zip(actions, steps):
            expected = np.zeros(A, np.float32)
            executed = 0
            for j in range(A):
                if ended:
                    break
                result = single.step(chunk[i, j])
                expected[j], executed = result.reward, executed + 1
                ended = result.terminated or result.truncated
            np.testing.assert_allclose(array(step.rewards)[i], expected, atol=1e-6)
            assert array(step.n_executed)[i] == executed
            assert array(step.ended)[i] == ended
            now = single.observe()
            np.testing.assert_allclose(array(step.obs.state)[i], now.state, atol=1e-5)
            np.testing.assert_allclose(array(step.obs.privileged)[i], now.privileged, atol=1e-5)
            for name, image in now.images.items():
                difference = np.abs(array(step.obs.images[name])[i].astype(int) - image)
                assert np.mean(difference > 8) < 0.005, f"{name} is not the picture of the last executed step"
        assert ended
        assert single.elapsed % A, "the episode must end inside a chunk for this test to say anything"


def test_an_ended_environment_executes_nothing(env, factory):
    _, steps = rollout(env, factory.settings, 7, solvers=(0,))
    end = steps[-1]
    assert array(end.ended).all()
    again = env.step_chunk(random_actions(env, 3, scale=1.0))
    assert array(again.n_executed).tolist() == [0] * E
    assert not array(again.rewards).any()
    for name in ("terminated", "truncated", "success", "success_now", "invalid"):
        assert np.array_equal(array(getattr(again, name)), array(getattr(end, name)))
    assert all(same(flat(again.obs, i), flat(end.obs, i)) for i in range(E))
    fresh = env.reset(range(E), SEEDS)
    assert not same(flat(fresh, 0), flat(end.obs, 0))
    assert array(env.step_chunk(random_actions(env, 3)).n_executed).tolist() == [A] * E


def test_reset_of_one_leaves_the_others_bit_equal(env):
    def run(with_reset):
        env.reset(range(E), SEEDS)
        env.step_chunk(random_actions(env, 1, scale=1.0))
        if with_reset:
            env.reset([1], [55])
        return [env.step_chunk(random_actions(env, 2 + k, scale=1.0)) for k in range(2)]

    without, with_ = run(False), run(True)
    for a, b in zip(without, with_):
        for i in (0, 2, 3):
            assert same(flat(a.obs, i), flat(b.obs, i))
            assert np.array_equal(array(a.rewards)[i], array(b.rewards)[i])
        assert not same(flat(a.obs, 1), flat(b.obs, 1))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_non_finite_action_is_refused_before_anything_moves(env, poison):
    before = env.reset(range(E), SEEDS)
    actions = random_actions(env, 0)
    actions[2, 3, 1] = poison
    with pytest.raises(ValueError, match="environment 2, step 3"):
        env.step_chunk(actions)
    env.step_chunk(np.zeros_like(actions))
    again = env.reset(range(E), SEEDS)
    assert all(same(flat(before, i), flat(again, i)) for i in range(E))


def test_wrong_arguments_are_refused(env):
    env.reset(range(E), SEEDS)
    d = env.spec.act_dim
    for shape in ((E, d), (E + 1, A, d), (E, A, d + 1), (E, 0, d)):
        with pytest.raises(ValueError, match=f"E={E}"):
            env.step_chunk(np.zeros(shape, np.float32))
    for ids, seeds, words in (([E], [0], "do not exist"), ([1, 1], [0, 1], "repeat"), ([1], [0, 1], "one seed per")):
        with pytest.raises(ValueError, match=words):
            env.reset(ids, seeds)


def test_recording_keeps_one_frame_per_executed_step(env, factory):
    env.reset(range(E), SEEDS)
    env.record([1, 3])
    env.step_chunk(random_actions(env, 0))
    env.step_chunk(random_actions(env, 1))
    frames = env.take_frames(1)
    assert frames.dtype == np.uint8
    assert frames.shape[0] == 2 * A
    assert frames.shape[3] == 3
    assert min(frames.shape[1:3]) >= 64
    assert not np.array_equal(frames[0], frames[-1])
    assert len(env.take_frames(1)) == 0
    assert len(env.take_frames(0)) == 0
    env.step_chunk(random_actions(env, 2))
    assert len(env.take_frames(1)) == A
    env.record([3])  # the others stop, and are forgotten
    env.step_chunk(random_actions(env, 3))
    assert len(env.take_frames(1)) == 0
    assert len(env.take_frames(3)) == 4 * A
    env.record([])
    env.record([1])
    assert len(env.take_frames(3)) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [TOYS[:2], *(pytest.param(*pair[:2], marks=pytest.mark.simulator) for pair in (SIMULATORS, FAMILY, MUJOCO))],
    ids=["toy", "maniskill", "put-on-plate", "gym-aloha"],
)
def test_workers_give_the_episodes_of_one_process(environments, one, other):
    _, a = rollout(environments.get(one), one.settings, 5, (0, 1))
    _, b = rollout(environments.get(other), other.settings, 5, (0, 1))
    for x, y in zip(a, b):
        assert np.array_equal(x.rewards, y.rewards)
        assert all(same(flat(x.obs, i), flat(y.obs, i)) for i in range(E))


@pytest.mark.parametrize("factory_", TOYS, ids=lambda f: f.name)
def test_stepping_before_reset_and_closing_twice(factory_):
    env = factory_.build()
    env.reset([0, 1], [0, 1])
    with pytest.raises(RuntimeError, match=r"\[2, 3\] are stepped before a reset"):
        env.step_chunk(np.zeros((E, A, env.spec.act_dim), np.float32))
    env.close()
    env.close()


@pytest.mark.simulator
def test_the_batched_partial_reset_needs_its_controller_work_round(environments, monkeypatch):
    """Without putting the controllers' targets back, the bit-equality test above would fail."""
    env = environments.get(SIMULATORS[2])
    monkeypatch.setattr(env._env.agent, "set_controller_state", lambda state: None)
    with pytest.raises(AssertionError):
        test_reset_of_one_leaves_the_others_bit_equal(env)


@pytest.mark.simulator
def test_inner_steps_do_not_render(environments, monkeypatch):
    env = environments.get(SIMULATORS[0])
    env.reset(range(E), SEEDS)
    renders = []

    def counted(update, update_sensors, **others):
        renders.append(update_sensors)
        update(update_sensors=update_sensors, **others)

    for single in env._links[0].envs:
        scene = single.unwrapped.scene
        monkeypatch.setattr(scene, "update_render", partial(counted, scene.update_render))
    assert env.step_chunk(random_actions(env, 0)).n_executed.tolist() == [A] * E
    assert renders.count(True) == E
