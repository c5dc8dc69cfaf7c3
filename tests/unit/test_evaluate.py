"""Evaluation counts every episode once, whatever its length, and says the same when asked again."""

from dataclasses import replace

import pytest
from faulty_toy import FAULTY
from helpers.toy_world import toy_evaluator, toy_model

from rlft.errors import RlftError
from rlft.evaluate.result import strata_text, summarise, summary_line, tabulate
from rlft.seeding import seed_for
from rlft.statistics import wilson_interval

NUMBERED = {"make_kwargs": {"numbered": True}}


def run(**changes):
    return toy_evaluator(**changes).run(toy_model().actor.policy, "test")


def named(result):
    episodes = result.per_episode
    return [(e.index, e.seed, e.configuration_id, e.success_once, e.success_at_end, e.steps) for e in episodes]


def test_every_episode_is_run_once():
    result = run()
    assert [e.index for e in result.per_episode] == list(range(12))
    assert len({e.seed for e in result.per_episode}) == 12
    assert result.episodes == 12
    assert result.successes == sum(e.success_once for e in result.per_episode)
    assert result.ci95 == wilson_interval(result.successes, 12)


@pytest.mark.parametrize("ends_on_success", [True, False])
@pytest.mark.parametrize("select", ["seeds", "stratified"])
def test_the_result_does_not_depend_on_the_number_of_environments(select, ends_on_success):
    """Also where the episodes are no multiple of the environments, or fewer."""
    changes = {"limit": 30, "episodes": 22, "select": select, "episode_ends_on_success": ends_on_success} | NUMBERED
    one = run(num_envs=1, **changes)
    for num_envs in (2, 4, 8, 16):
        many = run(num_envs=num_envs, **changes)
        assert named(many) == named(one)
        for ours, theirs in zip(many.per_episode, one.per_episode, strict=True):
            assert ours.episode_return == pytest.approx(theirs.episode_return, abs=1e-5)
            assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-5)
        assert many.protocol_hash == one.protocol_hash
    assert 0 < one.successes < 22


def test_exploring_episodes_are_named_too_and_go_otherwise():
    """A probe plays the same episodes with the rollout's noise, whatever the number of environments."""
    model = toy_model().actor
    noisy = [toy_evaluator(num_envs=n, limit=20).run(model.policy, "probe", explore=model) for n in (3, 12)]
    clean = toy_evaluator(num_envs=3, limit=20).run(model.policy, "probe")
    assert named(noisy[0]) == named(noisy[1])
    assert [e.seed for e in noisy[0].per_episode] == [e.seed for e in clean.per_episode]
    assert [e.episode_return for e in noisy[0].per_episode] != [e.episode_return for e in clean.per_episode]


def test_progress_counts_every_episode_once():
    seen = []
    evaluator, policy = toy_evaluator(num_envs=5, limit=20), toy_model().actor.policy
    result = evaluator.run(policy, "test", on_progress=lambda *counts: seen.append(counts))
    assert [done for done, _, _ in seen] == list(range(1, 13))
    assert {total for _, total, _ in seen} == {12}
    assert seen[-1][2] == result.successes > 0


def test_another_protocol_seed_gives_other_episodes():
    assert run(seed=7).per_episode != run(seed=8).per_episode


def test_with_the_time_limit_every_episode_runs_it_fully_and_success_may_be_lost_again():
    until_success = run(limit=20, episodes=24)
    whole = run(limit=20, episodes=24, episode_ends_on_success=False)
    assert {e.steps for e in whole.per_episode} == {20}
    # Up to the first success both are the same episode, so the same ones succeed at some step.
    assert [e.success_once for e in whole.per_episode] == [e.success_once for e in until_success.per_episode]
    assert until_success.success_at_end == until_success.success
    lost = [e for e in whole.per_episode if e.success_once and not e.success_at_end]
    assert lost
    assert whole.success_at_end == sum(e.success_at_end for e in whole.per_episode) / 24 < whole.success
    assert whole.ci95_at_end == wilson_interval(round(24 * whole.success_at_end), 24)
    assert whole.protocol_hash != until_success.protocol_hash


def test_metrics_are_of_the_last_step_and_averaged():
    result = run(limit=20)
    for episode in result.per_episode:
        assert (episode.metrics["distance"] < 0.15) == episode.success_at_end  # the toy's goal radius
    assert result.metrics["distance"] == pytest.approx(sum(e.metrics["distance"] for e in result.per_episode) / 12)


def test_all_configurations_are_run_once_and_counted_by_label():
    result = run(select="all", limit=20, **NUMBERED)
    assert [e.configuration_id for e in result.per_episode] == list(range(36))
    counts = {key: [row.episodes for row in rows] for key, rows in result.strata.items()}
    assert counts == {"start": [9] * 4, "goal": [4] * 9}
    for key, rows in result.strata.items():
        assert sum(row.successes for row in rows) == result.successes
        for row in rows:
            members = [e for e in result.per_episode if e.labels[key] == row.name]
            assert row.successes == sum(e.success_once for e in members)
            assert row.ci95 == wilson_interval(row.successes, len(members))
        assert result.macro[key] == pytest.approx(sum(row.success for row in rows) / len(rows))


def test_the_environment_shows_the_configuration_that_the_label_names():
    """The toy's privileged state is start and goal; both stand in the labels, up to the seed's jitter."""
    evaluator = toy_evaluator(num_envs=36, select="all", privileged=True, **NUMBERED)
    episodes = evaluator.episodes
    obs = evaluator.env.reset(range(36), [e.seed for e in episodes], [e.configuration_id for e in episodes])
    for row, episode in zip(obs.privileged, episodes, strict=True):
        said = [float(x) for key in ("start", "goal") for x in episode.labels[key].split()]
        assert row == pytest.approx(said, abs=0.051)


def test_environments_of_another_protocol_are_refused():
    evaluator = toy_evaluator(limit=9)
    with pytest.raises(ValueError, match="max_episode_steps: 8, not 9"):
        type(evaluator)(toy_evaluator(limit=8).env, evaluator.placement, evaluator.protocol)
    numbered = toy_evaluator(select="all", **NUMBERED)
    with pytest.raises(ValueError, match="do not exist"):
        type(evaluator)(toy_evaluator().env, evaluator.placement, numbered.protocol)


def test_a_replay_is_the_same_episode_with_an_image_per_step():
    evaluator, videos = toy_evaluator(num_envs=2, limit=20), {}
    policy = toy_model().actor.policy
    result = evaluator.run(policy, "test")
    chosen = result.failures_first()[:5]
    evaluator.replay(policy, chosen, lambda episode, frames: videos.update({episode.index: (episode, frames.copy())}))
    assert sorted(videos) == sorted(chosen)
    for index, (episode, frames) in videos.items():
        original = result.per_episode[index]
        assert (episode.success_once, episode.steps) == (original.success_once, original.steps)
        assert episode.episode_return == pytest.approx(original.episode_return, abs=1e-5)
        assert len(frames) == episode.steps
    assert evaluator.run(policy, "test").per_episode == result.per_episode


def test_failures_come_before_successes():
    result = run(limit=20)
    order = result.failures_first()
    outcomes = [result.per_episode[i].success_once for i in order]
    assert outcomes == sorted(outcomes)
    assert sorted(order) == list(range(12))
    assert order[0] == next(e.index for e in result.per_episode if not e.success_once)


def test_images_are_kept_in_a_replay_only_and_of_a_bounded_number_of_environments():
    evaluator, recorded = toy_evaluator(num_envs=12, limit=4), []
    original = evaluator.env.record
    evaluator.env.record = lambda env_ids: (recorded.append(list(env_ids)), original(env_ids))
    policy = toy_model().actor.policy
    evaluator.run(policy, "test")
    assert recorded == []
    evaluator.replay(policy, range(12), lambda episode, frames: None)
    assert recorded == [list(range(8)), []]
    assert all(len(evaluator.env.take_frames(i)) == 0 for i in range(12))


def faulty(seed, marker=None, kind="nan_reward"):
    fault = {"kind": kind, "seed": seed, "at_step": 3, "marker": marker}
    return {"simulator": FAULTY, "make_kwargs": {"fault": fault}}


def test_an_episode_in_which_the_simulator_fails_is_run_again(tmp_path):
    fault = faulty(seed_for(7, "eval-episode", 5), str(tmp_path / "once"))
    result = run(**fault)
    assert result.restarted == 1
    assert result.per_episode == run().per_episode


def test_an_episode_in_which_the_simulator_always_fails_stops_the_evaluation():
    seed = seed_for(7, "eval-episode", 5)
    with pytest.raises(RlftError, match=rf"failed 3 times in evaluation episode 5 \(seed {seed}"):
        run(**faulty(seed))


def test_a_video_of_an_episode_that_was_run_again_shows_the_second_run(tmp_path):
    marker = tmp_path / "once"
    evaluator, lengths = toy_evaluator(**faulty(seed_for(7, "eval-episode", 1), str(marker))), {}
    policy = toy_model().actor.policy
    result = evaluator.run(policy, "test")
    assert result.restarted == 1
    marker.unlink()
    evaluator.replay(policy, [0, 1], lambda episode, frames: lengths.update({episode.index: len(frames)}))
    assert marker.exists()
    assert lengths == {e.index: e.steps for e in result.per_episode[:2]}


def test_the_tables_for_the_terminal():
    result = run(select="stratified", episodes=6, limit=20, **NUMBERED)
    low, high = (100 * end for end in result.ci95)
    assert f"{result.successes} of 6 episodes succeed" in summary_line(result)
    assert f"[{low:.1f}, {high:.1f}]" in summary_line(result)
    assert result.protocol_hash[:12] in summary_line(result)
    text = strata_text(result)
    titles = [line for line in text.splitlines() if line.startswith("by ")]
    assert titles[0] == f"by start (the mean of the rows is {100 * result.macro['start']:.1f} %)"
    assert titles[1].endswith("%, 3 of its 9 values had no episode)")
    row = result.strata["start"][0]
    line = next(line for line in text.splitlines() if line.startswith(f"  {row.name} "))
    assert f"{row.successes} of {row.episodes}" in line
    assert f"[{100 * row.ci95[0]:.1f}, {100 * row.ci95[1]:.1f}]" in line
    assert strata_text(run()) == ""


def test_a_table_for_the_terminal_has_an_end():
    result = run(limit=20)
    result.strata = tabulate(({"start": f"{i:03}"}, True, True) for i in range(300))
    result.macro = {"start": 1.0}
    lines = strata_text(result).splitlines()
    assert len(lines) == 42
    assert lines[-1] == "  and 260 more in the file"


@pytest.mark.parametrize("wrong", [[0, 1], [0, 1, 1], [0, 1, 2, 2], [1, 2, 3]], ids=str)
def test_a_result_has_every_episode_once(wrong):
    whole = run(episodes=3)
    protocol = toy_evaluator(episodes=3).protocol
    episodes = [replace(whole.per_episode[0], index=i) for i in wrong]
    with pytest.raises(ValueError, match="3 episodes were to run, each once"):
        summarise("test", protocol, episodes, seconds=1.0, restarted=0)
