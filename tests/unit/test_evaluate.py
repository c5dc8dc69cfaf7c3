"""Evaluation counts every episode once, whatever its length, and says the same when asked again."""

import pytest
from helpers.toy_world import PLACEMENT, toy_env, toy_model

from rlft.evaluate import Evaluator, Protocol
from rlft.metrics import wilson_interval


def run(*, num_envs=4, episodes=12, videos=0, on_video=None, seed=7, limit=9, **env):
    world = toy_env(num_envs, limit=limit, **env)
    evaluator = Evaluator(world, PLACEMENT, Protocol(episodes, seed, num_steps=3, act_steps=2, num_videos=videos))
    return evaluator.run(toy_model().policy, "test", on_video=on_video)


def test_every_episode_is_run_once_and_each_environment_runs_as_many():
    result = run()
    assert [e.index for e in result.per_episode] == list(range(12))
    assert len({e.seed for e in result.per_episode}) == 12
    assert result.episodes == 12
    assert result.successes == sum(e.success for e in result.per_episode)
    assert result.ci95 == wilson_interval(result.successes, 12)


def test_the_result_does_not_depend_on_the_number_of_environments():
    few, many = run(num_envs=2).per_episode, run(num_envs=6).per_episode
    assert [(e.index, e.seed, e.success, e.steps) for e in few] == [(e.index, e.seed, e.success, e.steps) for e in many]
    assert [e.episode_return for e in few] == pytest.approx([e.episode_return for e in many], abs=1e-6)


def test_another_protocol_seed_gives_other_episodes():
    assert run(seed=7).per_episode != run(seed=8).per_episode


def test_success_needs_no_luck_of_the_window():
    """Short successes must not be counted more often than long failures: compare with one environment per episode."""
    spread = run(num_envs=12, limit=20)
    assert run(num_envs=3, limit=20).success == spread.success
    assert 0 < spread.successes < 12


def test_lengths_and_returns_are_of_executed_steps():
    result = run(episode_ends_on_success=False)
    assert {e.steps for e in result.per_episode} == {9}
    assert result.mean_steps == 9


def test_an_uneven_number_of_episodes_is_refused():
    with pytest.raises(ValueError, match=r"eval\.episodes=10"):
        run(episodes=10)


def test_videos_are_of_the_first_episodes_from_start_to_end():
    videos = {}
    result = run(videos=3, on_video=lambda index, success, frames: videos.update({index: (success, len(frames))}))
    assert sorted(videos) == [0, 1, 2]
    for index, (success, frames) in videos.items():
        assert success == result.per_episode[index].success
        assert frames == result.per_episode[index].steps


def test_a_second_evaluation_shows_nothing_of_the_first_and_only_what_is_shown_is_recorded():
    world, lengths = toy_env(2, limit=9), []
    recorded = []
    original = world.record
    world.record = lambda env_ids: (recorded.append(list(env_ids)), original(env_ids))
    evaluator = Evaluator(world, PLACEMENT, Protocol(6, 7, num_steps=3, act_steps=2, num_videos=3))
    for _ in range(2):
        result = evaluator.run(
            toy_model().policy, "test", on_video=lambda index, success, frames: lengths.append((index, len(frames)))
        )
    steps = {(e.index, e.steps) for e in result.per_episode if e.index < 3}
    assert sorted(lengths) == sorted([*steps, *steps])
    assert recorded[0] == [0, 1]
    assert recorded[-1] == []


def test_a_video_of_an_episode_that_was_run_again_shows_the_second_run(tmp_path):
    from rlft.seeding import seed_for

    seed = seed_for(7, "eval-episode", 1)
    fault = {"kind": "nan_reward", "seed": seed, "at_step": 3, "marker": str(tmp_path / "once")}
    videos = {}
    result = run(
        videos=2, make_kwargs={"fault": fault}, on_video=lambda index, _, frames: videos.update({index: len(frames)})
    )
    assert result.restarted == 1
    assert videos == {e.index: e.steps for e in result.per_episode[:2]}


def test_an_episode_in_which_the_simulator_fails_is_run_again(tmp_path):
    from rlft.seeding import seed_for

    fault = {
        "kind": "nan_reward",
        "seed": seed_for(7, "eval-episode", 5),
        "at_step": 2,
        "marker": str(tmp_path / "once"),
    }
    result = run(make_kwargs={"fault": fault})
    assert result.restarted == 1
    assert result.per_episode == run().per_episode
