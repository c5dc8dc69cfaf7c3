import json
import math
from pathlib import Path

import pytest
from report_run_builder import make_run, write_evaluation

from rlft.files import read_stage, write_stage
from rlft.report.evalfiles import EPISODE, RESULT, RunFileError
from rlft.report.rundir import number, read_run


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


def test_a_whole_run_is_read(whole_run: Path):
    run = read_run(whole_run)
    assert run.missing == ()
    assert (run.before.label, run.before.successes, len(run.before.episodes)) == ("sft", 8, 20)
    assert (run.after.label, run.after.successes) == ("rl", 16)
    assert [(v.label, v.index, v.success) for v in run.videos] == [
        ("rl", 0, False),
        ("rl", 5, True),
        ("rl", 12, True),
        ("sft", 0, True),
        ("sft", 5, True),
        ("sft", 12, False),
    ]


def test_evaluations_on_the_way_stand_in_for_missing_ends(tmp_path: Path):
    for iteration, wins in ((0, 1), (9, 2), (10, 3)):
        write_evaluation(tmp_path, f"rl_{iteration:05d}", [i < wins for i in range(4)])
    run = read_run(tmp_path)
    assert (run.before.label, run.after.label) == ("rl_00000", "rl_00010")
    write_evaluation(tmp_path, "sft", [False] * 4)
    write_evaluation(tmp_path, "rl", [True] * 4)
    run = read_run(tmp_path)
    assert (run.before.label, run.after.label) == ("sft", "rl")


def test_evaluations_stand_in_the_order_of_training(tmp_path: Path):
    for label in ("rl", "rl_00010", "sft_source", "rl_00002", "sft"):
        write_evaluation(tmp_path, label, [True])
    assert list(read_run(tmp_path).evaluations) == ["sft_source", "sft", "rl_00002", "rl_00010", "rl"]


def test_the_initial_evaluation_alone_is_no_result_of_ppo(tmp_path: Path):
    write_evaluation(tmp_path, "rl_00000", [True] * 4)
    assert read_run(tmp_path).after is None


def test_an_empty_directory_lists_what_is_missing(tmp_path: Path):
    run = read_run(tmp_path)
    assert set(run.missing) == {
        "config.yaml",
        "metrics.jsonl",
        "collect.json",
        "sft.json",
        "eval_sft.json",
        "rl.json",
        "eval_rl.json",
        "provenance.jsonl",
        "videos/",
    }


def test_no_directory_is_an_error(tmp_path: Path):
    with pytest.raises(NotADirectoryError, match="nowhere: no run directory"):
        read_run(tmp_path / "nowhere")


GOOD_LINE = json.dumps({"time": 1.0, "stage": "rl", "step": 1})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", f'{GOOD_LINE}\n\n{{"time": 1, "st', r"metrics\.jsonl:3: not JSON"),
        ("metrics.jsonl", f'{GOOD_LINE}\n{{"time": 1.0, "stage": "rl"}}', r"metrics\.jsonl:2: lacks step"),
        ("metrics.jsonl", "[1, 2]\n", r"metrics\.jsonl:1: holds a list"),
        ("sft.json", '{\n  "steps": 3,\n  "final_loss": \n}', r"sft\.json:4: not JSON"),
        ("collect.json", '{"failures": {"no_plan": 3}}', r"collect\.json:1: failures=.* no object of seed lists"),
        ("rl.json", "", r"rl\.json:1: not JSON"),
        (
            "eval_rl.json",
            "{}",
            r"eval_rl\.json:1: lacks protocol, .*: an earlier version .* eval\.label=rl, or",
        ),
        ("eval_suite_rl.json", '{"suite": "x"}', r"eval_suite_rl\.json:1: lacks rows, .*; run the suite again"),
        ("eval_suite_rl.json", '{"suite": "x", "rows": 3, "groups": {}, "unequal": {}}', "holds no list of objects"),
        ("config.yaml", "a: 1\nb: [1, 2\nc: 3\n", r"config\.yaml:3: not YAML"),
        ("config.yaml", "- a\n- b\n", r"config\.yaml:1: holds a list"),
        ("provenance.jsonl", '{"stage": "rl"}\n', r"provenance\.jsonl:1: lacks command"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(name: str, content: str, message: str, tmp_path: Path):
    (tmp_path / name).write_text(content)
    with pytest.raises(RunFileError, match=message):
        read_run(tmp_path)


def test_an_evaluation_that_contradicts_itself_is_refused(tmp_path: Path):
    write_evaluation(tmp_path, "rl", [True, True, False], successes=3)
    with pytest.raises(RunFileError, match=r"episodes=3, successes=3 contradict per_episode, which holds 2 of 3"):
        read_run(tmp_path)


def test_scalars_that_are_not_finite_come_back_from_text():
    assert number("inf") == math.inf
    assert number("-inf") == -math.inf
    assert math.isnan(number("nan"))
    assert math.isnan(number(None))
    assert number(3) == 3.0


@pytest.mark.parametrize("name", RESULT)
def test_a_result_of_an_earlier_version_is_refused_with_what_it_lacks_and_what_to_do(name: str, tmp_path: Path):
    write_evaluation(tmp_path, "rl", [True, False])
    result = read_stage(tmp_path, "eval_rl")
    write_stage(tmp_path, "eval_rl", {key: value for key, value in result.items() if key != name})
    message = rf"lacks {name}: an earlier version of rlft wrote it, or it was edited; evaluate that checkpoint again"
    with pytest.raises(RunFileError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize("name", EPISODE)
def test_an_episode_of_an_earlier_version_is_refused_too(name: str, tmp_path: Path):
    write_evaluation(tmp_path, "rl", [True, False])
    result = read_stage(tmp_path, "eval_rl")
    del result["per_episode"][1][name]
    write_stage(tmp_path, "eval_rl", result)
    with pytest.raises(RunFileError, match=rf"lacks {name}: .* move the file away"):
        read_run(tmp_path)
