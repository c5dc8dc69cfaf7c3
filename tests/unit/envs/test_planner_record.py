"""What is recorded of an attempt, on a scripted environment."""

import numpy as np
import pytest

from rlft.types import DemoAttempt, EnvSettings, EnvSpec
from rlft_envs.errors import EnvSetupError, PlanError
from rlft_envs.record import RecordSettings, record
from rlft_envs.single import ObservationRow, Outcome, SingleEnv

SETTINGS = EnvSettings("scripted", "Count-v1", 1, 400, "delta")
ATTEMPT = DemoAttempt(3, 17, 5)


class Counter(SingleEnv):
    """The state is the sum of the executed actions; solved from ``goal`` on, until ``lost``."""

    def __init__(self, goal=3.0, lost=np.inf):
        super().__init__(SETTINGS)
        self.goal, self.lost, self.at, self.executed = goal, lost, 0.0, []

    spec = property(lambda self: EnvSpec("Count-v1", 1, (-1.0, -1.0), (1.0, 1.0), 1, (), "delta", 20.0, 400))
    instruction = property(lambda self: "count")

    def observe(self):
        image = np.full((2, 2, 3), int(self.at), np.uint8)
        return ObservationRow({"cam": image}, np.array([self.at], np.float32))

    def human_view(self):
        raise AssertionError("nobody watches")

    def close(self):
        pass

    def _start_episode(self, seed, configuration_id):
        self.at, self.executed = 0.0, []

    def _advance(self, action):
        self.executed.append(action)
        self.at += float(action[0])
        return Outcome(self.goal <= self.at < self.lost)

    def _dense_reward(self):
        return 0.0


class Stepper:
    """Steps by one; holds by zero."""

    frozen_action_dims, noisy_dims, success_counts = (1,), (0,), True

    def __init__(self, steps=20, step=1.0, error=None):
        self.steps, self.step, self.error = steps, step, error

    def act(self):
        if self.error is not None:
            raise self.error
        self.steps -= 1
        return np.array([self.step, -1.0], np.float32) if self.steps >= 0 else None

    def hold(self):
        return np.array([0.0, -1.0], np.float32)


def run(env=None, settings=None, **expert):
    return record(env or Counter(), lambda _: Stepper(**expert), ATTEMPT, settings or RecordSettings())


def test_every_step_holds_what_was_seen_before_its_action():
    found = run()
    assert (found.outcome, found.success_step, found.message) == ("success", 3, "")
    assert [float(s[0]) for s in found.states] == [0, 1, 2, 3, 3]
    assert [float(a[0]) for a in found.actions] == [1, 1, 1, 0, 0]  # two steps held after success
    assert [int(p[0, 0, 0]) for p in found.images["cam"]] == [0, 1, 2, 3, 3]
    assert found.states[0].dtype == found.actions[0].dtype == np.float32


def test_without_hold_steps_the_recording_ends_at_success():
    assert len(run(settings=RecordSettings(hold_steps=0)).actions) == 3


def test_noise_is_executed_but_not_recorded():
    env = Counter(goal=2.5)
    found = run(env, RecordSettings(hold_steps=0, action_noise=0.3), step=0.9)
    executed, recorded = np.stack(env.executed), np.stack(found.actions)
    assert (recorded[:, 0] == np.float32(0.9)).all()
    assert (executed[:, 0] != recorded[:, 0]).all()
    assert np.abs(executed).max() <= 1.0
    assert np.array_equal(executed[:, 1], recorded[:, 1])  # the gripper is left alone
    again = Counter(goal=2.5)
    run(again, RecordSettings(hold_steps=0, action_noise=0.3), step=0.9)
    assert np.array_equal(executed, np.stack(again.executed))


@pytest.mark.parametrize(
    ("env", "expert", "settings", "outcome", "says"),
    [
        (Counter(goal=99), {"steps": 5}, {}, "executed_not_solved", "over after 5 steps"),
        (Counter(goal=99), {"steps": 500}, {"max_steps": 7}, "too_slow", "not solved within 7"),
        (Counter(goal=3, lost=3.0), {"steps": 5}, {}, "executed_not_solved", "over"),
        (Counter(), {"error": PlanError("ik", "out of reach")}, {}, "ik", "out of reach"),
        (Counter(), {"error": PlanError("no_plan", "no way")}, {}, "no_plan", "no way"),
        (Counter(), {"error": RuntimeError("lost")}, {}, "simulator_error", "RuntimeError: lost"),
        (Counter(), {"step": float("nan")}, {}, "simulator_error", "not finite"),
    ],
)
def test_failures_are_classified(env, expert, settings, outcome, says):
    found = run(env, RecordSettings(**settings), **expert)
    assert found.outcome == outcome
    assert says in found.message
    assert found.attempt == ATTEMPT


def test_a_success_that_is_lost_again_is_a_failure():
    class Slipping(Counter):
        def _advance(self, action):
            outcome = super()._advance(action)
            return Outcome(outcome.success and len(self.executed) < 5)

    found = run(Slipping())
    assert found.outcome == "executed_not_solved"
    assert "solved at step 3, but not 2 steps later" in found.message


def test_what_no_seed_can_change_is_raised():
    with pytest.raises(EnvSetupError):
        run(error=EnvSetupError("no planner"))
