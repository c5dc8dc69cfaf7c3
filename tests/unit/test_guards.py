"""What stops a run that goes wrong, and what is only said."""

import io
from types import SimpleNamespace

import pytest
import torch
from helpers.learners import settings
from helpers.toy_world import toy_actor, toy_env, toy_model, toy_sampler

from rlft.config.learning import GuardConfig
from rlft.config.load import changed
from rlft.errors import DivergedError, RlftError
from rlft.learn.updater import Updater
from rlft.objective.grpo import GRPO
from rlft.progress import Progress
from rlft.rollout.store import StoreChoice
from rlft.run.guards import BestEvaluation, HealthWarnings, Probe, check_probe
from rlft.run.runner import Runner
from rlft.statistics import wilson_interval


def test_a_policy_that_exploration_leaves_nothing_of_is_refused_with_the_cause():
    guard = GuardConfig()
    check_probe(Probe(64, noisy_success=0.05, clean_success=0.66), guard)
    with pytest.raises(DivergedError, match=r"1\.6% of 64 .*65\.6% without.*the noise is too much.*std_max") as stop:
        check_probe(Probe(64, noisy_success=1 / 64, clean_success=42 / 64), guard)
    assert stop.value.exit_code == 3
    with pytest.raises(DivergedError, match=r"hardly succeeds without noise either.*min_noisy_success=0"):
        check_probe(Probe(64, noisy_success=0.0, clean_success=0.0), guard)
    check_probe(Probe(64, noisy_success=0.0, clean_success=0.0), GuardConfig(min_noisy_success=0.0))


def fall(before, after, n=128, **settings):
    best = BestEvaluation()
    assert best.beaten_by(before / n, wilson_interval(before, n), 10)
    best.check_drop(after / n, wilson_interval(after, n), GuardConfig(**settings))


def test_a_fall_of_evaluation_stops_the_run_and_chance_does_not():
    with pytest.raises(DivergedError, match=r"from 85\.2% at iteration 10 to 60\.2%.*`best`"):
        fall(109, 77)
    fall(109, 90)  # 15 points
    fall(7, 4, n=8)  # 37 points of eight episodes are chance
    fall(109, 77, max_success_drop=None)
    with pytest.raises(DivergedError, match=r"max_success_drop = 0\.1"):
        fall(109, 90, max_success_drop=0.1)


def test_unhealthy_numbers_are_said_once_until_they_are_healthy_again(caplog):
    def said(health, clip_fraction, clipped_actions):
        caplog.clear()
        health.look(7, {"update/clip_fraction": clip_fraction, "rollout/clipped_actions": clipped_actions})
        return [record.getMessage().split(" = ")[0] for record in caplog.records]

    health = HealthWarnings(GuardConfig())
    assert said(health, 0.31, 0.06) == ["iteration 7: update/clip_fraction", "iteration 7: rollout/clipped_actions"]
    assert "guard.warn_clip_fraction = 0.3" in caplog.text
    assert said(health, 0.4, 0.04) == []
    assert said(health, float("nan"), 0.06) == ["iteration 7: rollout/clipped_actions"]
    assert said(health, 0.31, 0.06) == ["iteration 7: update/clip_fraction"]
    assert said(HealthWarnings(GuardConfig(warn_clip_fraction=0.4, warn_clipped_actions=None)), 0.31, 0.06) == []


class Recorder:
    """Stands where the run directory would be: evaluations as scripted, saves and lines as they come."""

    def __init__(self, successes):
        self.successes, self.saved, self.lines = list(successes), [], []

    def evaluate(self, label):
        wins = self.successes.pop(0)
        interval = wilson_interval(wins, 100)
        return SimpleNamespace(success=wins / 100, ci95=interval, scalars=lambda: {"success": wins / 100})

    def save(self, state, best):
        self.saved.append((state.iteration, best))

    def log(self, stage, step, scalars):
        self.lines.append((stage, step, dict(scalars)))


HEALTHY = Probe(8, noisy_success=0.5, clean_success=0.5)


TRAIN = {"n_critic_warmup_itr": 0, "batch_size": 10, "update_epochs": 1, "save_model_freq": 0, "val_freq": 1}


def run(successes, *, probe=HEALTHY, env=None, path="trained", **changes):
    torch.set_num_threads(1)
    cfg = changed(settings(**(TRAIN | changes)), {"model.path": path})
    model, recorder = toy_model(cfg=cfg), Recorder(successes)
    sampler = toy_sampler(toy_env(2, **(env or {})), model=model, num_decisions=5)
    updater = Updater(model, cfg.train, cfg.guard)
    runner = Runner(
        cfg, model, sampler, updater, store=StoreChoice("prefix", ""), evaluate=recorder.evaluate,
        probe=lambda episodes: probe, save=recorder.save, tracker=recorder, progress=Progress("rl", io.StringIO()),
    )  # fmt: skip
    return runner, recorder


def test_the_best_evaluation_is_saved_beside_the_last():
    runner, recorder = run([50, 60, 55, 62], n_train_itr=3)
    runner.run()
    assert recorder.saved == [(1, True), (3, True)]
    assert (runner.state.best.success, runner.state.best.iteration) == (0.62, 3)
    runner, recorder = run([50, 45, 40], n_train_itr=2)
    runner.run()
    assert recorder.saved == [(2, False)]
    assert runner.state.best.iteration == 0


def test_a_fallen_run_is_saved_and_stopped():
    runner, recorder = run([50, 90, 40, 90], n_train_itr=3, save_model_freq=1)
    with pytest.raises(DivergedError, match="max_success_drop"):
        runner.run()
    assert recorder.saved == [(1, True), (2, False)]


def test_at_the_end_there_is_nothing_to_stop(caplog):
    runner, recorder = run([50, 90, 40], n_train_itr=2, save_model_freq=1)
    runner.run()
    assert recorder.saved == [(1, True), (2, False)]
    assert "has fallen from 90.0% at iteration 1 to 40.0%" in caplog.text


def test_a_checkpoint_of_another_objective_is_refused_in_words():
    runner, _ = run([], n_train_itr=1)
    state = runner.state_dict()
    runner.objective = GRPO(toy_actor(), settings())
    with pytest.raises(RlftError, match=r"trains noise beside the policy, and the checkpoint holds noise, critic"):
        runner.load_state_dict(state)


def test_the_probe_comes_before_the_first_rollout_and_is_logged():
    runner, recorder = run([50], probe=Probe(8, 0.0, 0.5), n_train_itr=1)
    with pytest.raises(DivergedError, match="min_noisy_success"):
        runner.run()
    assert [(stage, step) for stage, step, _ in recorder.lines] == [("eval", 0), ("probe", 0)]
    assert recorder.lines[1][2] == {"noisy_success": 0.0, "clean_success": 0.5, "episodes": 8.0}
    assert runner.state.env_steps == 0
    runner, recorder = run([50, 50], probe=None, guard=GuardConfig(probe_episodes=0), n_train_itr=1)
    runner.run()
    assert "probe" not in [stage for stage, *_ in recorder.lines]
    runner, recorder = run([50, 50], probe=None, path=None, n_train_itr=1)
    runner.run()
    assert "probe" not in [stage for stage, *_ in recorder.lines]


def test_the_stored_values_are_the_calibrated_critics(monkeypatch):
    """Privileged statistics come from the first rollout, whose values were of the critic before them: see B9."""
    torch.set_num_threads(1)
    how = {"n_train_itr": 1, "n_critic_warmup_itr": 1, "inputs": "privileged"}
    runner, _ = run([50, 50], env={"privileged": True}, **how)
    update, critic, stored = runner.updater.update, runner.objective.critic, {}

    def look(rollout, *args):
        value = critic(None, rollout.trace.privileged.flatten(0, 1))
        stored["difference"] = (value - rollout.trace.value.flatten()).abs().max()
        return update(rollout, *args)

    monkeypatch.setattr(runner.updater, "update", look)
    runner.run()
    assert bool(critic.calibrated)
    assert float(stored["difference"].detach()) < 1e-6


def test_a_run_goes_on_from_its_best(tmp_path):
    runner, _ = run([50, 60], n_train_itr=1)
    runner.run()
    again, recorder = run([], n_train_itr=1)
    again.load_state_dict(runner.state_dict())
    assert again.state == runner.state
    assert recorder.saved == []
