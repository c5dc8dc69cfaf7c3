"""A result reads itself back, refuses what cannot be trusted, and is compared with another, episode by episode."""

import json
import math
from dataclasses import asdict, replace
from itertools import product

import pytest
from helpers.eval_results import eval_result

from rlft.errors import RlftError, require_extra
from rlft.evaluate.result import COUNTS, EvalResult, compare, mcnemar_exact
from rlft.files import to_json, write_stage

FRUIT = [{"object": "carrot"}, {"object": "carrot"}, {"object": "bread"}]


def test_a_result_comes_back_and_the_files_name_is_its_label(tmp_path):
    result = eval_result("rl", [True, True, False], FRUIT)
    found = EvalResult.load(write_stage(tmp_path, "eval_kept", asdict(result)))
    assert to_json(asdict(found)) == to_json(asdict(result)) | {"label": "kept"}
    assert found.strata == result.strata
    assert found.max_episode_len == 50


def test_numbers_that_were_not_finite_come_back_as_nan(tmp_path):
    path = write_stage(tmp_path, "eval_rl", asdict(eval_result("rl", [True], gain=math.inf)))
    found = EvalResult.load(path)
    assert math.isnan(found.mean_return)
    assert math.isnan(found.per_episode[0].episode_return)


def changed(*path, **values):
    def change(content):
        for key in path:
            content = content[key]
        content.update(values)

    return change


def lacking(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacking("protocol"), "protocol: Field required"),
        (lacking("macro"), "macro: Field required"),
        (lacking("per_episode", 1, "seed"), r"per_episode\.1\.seed: Field required"),
        (lacking("strata", "object", 0, "ci95"), r"strata\.object\.0\.ci95: Field required"),
        (changed(successes="two"), "successes: Input should be a valid integer"),
        (changed("per_episode", 0, success_once=None), r"per_episode\.0\.success_once: .* boolean"),
        (changed("protocol", max_episode_steps=80), "protocol_hash is not that of the protocol"),
        (changed(successes=3), "episodes=3, successes=3, success=0.66.* contradict per_episode, which holds 2 of 3"),
        (changed("per_episode", 2, index=1), "per_episode does not hold each of the protocol's 3 episodes"),
        (lacking("per_episode", 2), "per_episode does not hold each"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_with_field_and_remedy(change, message, tmp_path):
    path = write_stage(tmp_path, "eval_rl", asdict(eval_result("rl", [True, True, False], FRUIT)))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RlftError, match=rf"eval_rl\.json: .*{message}.*; evaluate .*eval\.label=rl, or move the file"):
        EvalResult.load(path)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{\n  "label": "rl",\n', "{}"])
def test_a_file_that_is_no_result_at_all_is_refused(content, tmp_path):
    path = tmp_path / "eval_rl.json"
    path.write_text(content)
    with pytest.raises(RlftError, match=r"eval_rl\.json: .*damaged, edited, or by another version.*eval\.label=rl"):
        EvalResult.load(path)


def test_a_missing_package_names_the_extra():
    with pytest.raises(RlftError, match=r"needs no_such_one, .*: pip install 'rlft-flow\[report\]'"):
        require_extra("report", "json", "no_such_one")


def brute_force_p(gained: int, lost: int) -> float:
    """Share of all coin sequences that are at least as lopsided as the one seen."""
    seen = abs(gained - lost)
    sequences = list(product((1, -1), repeat=gained + lost))
    return sum(abs(sum(sequence)) >= seen for sequence in sequences) / len(sequences)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (4, 3), (3, 3), (9, 2), (2, 9)])
def test_mcnemar_counts_coin_sequences(gained: int, lost: int):
    assert mcnemar_exact(gained, lost) == pytest.approx(brute_force_p(gained, lost), abs=1e-12)


def test_mcnemar_stays_exact_for_many_episodes():
    # 60 gained, 1 lost: 2 * (1 + 61) / 2^61
    assert mcnemar_exact(60, 1) == pytest.approx(124 / 2**61, rel=1e-12)


def test_episodes_are_paired_by_their_place():
    before = eval_result("sft", [i < 8 for i in range(20)])
    after = eval_result("rl", [i not in (0, 1, 18, 19) for i in range(20)])
    counts = {"both": 6, "gained": 10, "lost": 2, "neither": 2, "pairs": 20}
    said = {"before": "sft", "after": "rl", "differences": [], "intervals_apart": False}
    said["gain_points"] = pytest.approx(100 * (after.success - before.success))
    # Twice the chance of at most two heads in twelve throws: 1, 12 and 66 of 4096 sequences.
    said["p_value"] = pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert compare(before, after) == said | counts


def test_evaluations_of_other_protocols_are_told_and_not_compared():
    before = eval_result("sft", [False] * 100)
    compared = compare(before, eval_result("rl", [True] * 101, max_episode_steps=80, make_kwargs='{"obj_set":"test"}'))
    assert compared["differences"] == [
        'make_kwargs: {} before, {"obj_set":"test"} after',
        "max_episode_steps: 50 before, 80 after",
        "episodes: 100 before, 101 after",
    ]
    assert [compared[key] for key in COUNTS] == [None] * len(COUNTS)


def test_episodes_that_share_a_seed_are_all_counted():
    """Seeds are 31 bits of a hash: among 100,000 episodes some are equal."""
    before, after = eval_result("sft", [True, False, False]), eval_result("rl", [True, True, False])
    for result in (before, after):
        result.per_episode[:] = [replace(episode, seed=7) for episode in result.per_episode]
    compared = compare(before, after)
    assert [compared[key] for key in COUNTS[:5]] == [1, 1, 0, 1, 3]
