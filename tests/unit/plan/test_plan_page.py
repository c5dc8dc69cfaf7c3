"""The page that a person reads; what is advised makes the run fit, is no more than needed, and is not made up."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlft import cli
from rlft.cli import plan_options
from rlft.config.load import changed, load
from rlft.placement import SHARE
from rlft.plan.machine import GIB, RESERVE, Machine, advise, format_overrides, measure
from rlft.plan.memory import CUDA_CONTEXT, HOST, Assumptions
from rlft.plan.page import plan_page, stage_page

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
SMALL = "model.small={depth: 4, expert_width: 256}"


def machine(gpu_mb, host_gib, *, sim=0, cores=2):
    """GPUs with so much room beside a CUDA context, and a host."""
    gpus = {f"cuda:{i}": int((gpu_mb * 1e6 + CUDA_CONTEXT) / (1.0 - RESERVE)) for i in range(3)}
    assumed = Assumptions(cores=cores, frames=20_000, sim_bytes=sim)
    return Machine({HOST: int(host_gib * GIB), **gpus}, assumed)


def test_the_documented_page_is_what_the_command_prints(capsys):
    (command,) = re.findall(r"\.venv/bin/python scripts/plan\.py (.*)", DOCS)
    assert cli.plan(command.split()) == 0
    wanted = DOCS.split(f"scripts/plan.py {command}\n")[1].split("```")[0]
    assert capsys.readouterr().out.split() == wanted.split()


@pytest.mark.parametrize("words", [["--help"], ["policy=pi9"]])
def test_help_and_errors_are_light(words):
    code = (
        f"import sys, runpy; sys.argv = ['plan.py', *{words}]\n"
        f"try: runpy.run_path({str(ROOT / 'scripts' / 'plan.py')!r}, run_name='__main__')\n"
        f"except SystemExit as done: assert done.code == {0 if words == ['--help'] else 2}, done.code\n"
        "heavy = [m for m in ('torch', 'lerobot', 'transformers', 'mani_skill') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_demonstrations_that_are_there_are_counted(tmp_path):
    facts = tmp_path / "meta" / "info.json"
    facts.parent.mkdir()
    facts.write_text('{"total_frames": 321}')
    words = ["--stage", "sft", "--host-gib", "8", f"dataset.path={tmp_path}", "--cfg", "sft.batch_size=8"]
    options, rest = plan_options(words)
    assert rest == words[4:]
    text = plan_page(load("plan", [word for word in rest if "=" in word]), options)
    assert "batch 8, 321 frames" in text
    assert "train_rl" not in text


@pytest.mark.parametrize("cameras", [0, 2])
def test_what_a_page_says(cameras):
    names = f"env.cameras=[{', '.join(f'{{name: camera{i}}}' for i in range(cameras))}]"
    cfg = load("plan", ["policy=small_pi05", "placement=three_gpus", names])
    text = "\n".join(stage_page(stage, cfg, machine(1000, 64)) for stage in ("train_rl", "train_sft"))
    for word in (f"cameras: {cameras}", "train_sft: ", " trained, ", "weights", "prefix : denoise step", "times less"):
        assert word in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_the_verdict_stands_under_its_device():
    words = ["policy=small", "placement=three_gpus", "train.micro_batch_size=null"]
    text = stage_page("train_rl", load("plan", words), machine(15, 64))
    header = next(line for line in text.splitlines() if line.startswith("GiB"))
    verdict = next(line for line in text.splitlines() if line.startswith("verdict"))
    assert verdict[: header.index("cuda:1") + len("cuda:1")].endswith("DOES NOT FIT")
    assert "It fits with: train.micro_batch_size=" in text


def test_a_device_that_is_not_here_gets_no_verdict():
    cfg = load("plan", ["policy=small", "model.device=cuda:61"])
    where = Machine(measure(cfg, gpu_gib=None, host_gib=64.0), Assumptions(cores=2))
    text = stage_page("train_rl", cfg, where)
    assert "cuda:61: not in this machine" in text
    assert "It fits as it is" not in text
    assert where.fits(where.plan("train_rl", cfg), "cuda:61") is None
    assert advise("train_rl", cfg, where) == {}


def test_a_simulation_that_nobody_measured_is_said_and_not_made_up():
    cfg = load("plan", ["policy=small", "env.simulator=test_plan_memory:Elsewhere"])
    plan = Machine({HOST: 2 * GIB}, Assumptions(cores=2)).plan("train_rl", cfg)
    assert (plan.unknown, plan.used[HOST]["simulation"]) == ((HOST,), 0)
    text = stage_page("train_rl", cfg, Machine({HOST: 2 * GIB}, Assumptions(cores=2)))
    assert "The simulation on cpu is not counted" in text
    assert "not counted" not in stage_page("train_rl", cfg, Machine({HOST: 2 * GIB}, Assumptions(cores=2, sim_bytes=5)))


MICRO = "train.micro_batch_size=16"
CASES = {
    "a large minibatch": ("train_rl", machine(150, 64), ["placement=three_gpus", "train.micro_batch_size=null"]),
    "asked to store prefixes": (
        "train_rl",
        machine(120, 1.0035),
        ["placement=one_gpu", "buffer.store=prefix", MICRO, "n_action_steps=10", "env.num_envs=64"],
    ),
    "the VLM trains": ("train_rl", machine(200, 64), ["placement=one_gpu", "model.train_vlm=true"]),
    "groups": (
        "train_rl",
        machine(200, 0.9823),  # beside the libraries, the host has room for the images of 24 environments
        ["task=toy", "env.num_envs=48", "env.n_steps_rollout=40", "train.objective=grpo", "placement=one_gpu"],
    ),
    "many simulators": ("train_rl", machine(24, 16, cores=16), ["env.num_envs=64"]),
    "a whole network": ("train_sft", machine(110, 64), ["placement=one_gpu", "sft.train_expert_only=false"]),
    "kept prefixes": (
        "train_sft",
        machine(200, 64),
        ["placement=one_gpu", *(f"sft.{x}=true" for x in ("cache_prefix", "train_expert_only"))],
    ),
}


def group_size(cfg):
    return 8 if cfg.train.objective == "grpo" else 1


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_advised_makes_it_fit_and_nothing_of_it_can_be_spared(case):
    stage, where, words = case
    cfg = load(stage, ["policy=small", SMALL, *words])
    assert where.overfull(where.plan(stage, cfg))
    advice = advise(stage, cfg, where)
    assert advice
    mended = load(stage, ["policy=small", SMALL, *words, *format_overrides(advice).split()])  # as it would be typed
    assert mended == changed(cfg, advice)
    assert mended.env.num_envs % group_size(mended) == 0
    assert where.overfull(where.plan(stage, mended)) == []
    for key in advice.keys() - {"train.batch_size"}:  # follows from the number of environments
        without = changed(cfg, {name: value for name, value in advice.items() if name != key})
        assert where.overfull(where.plan(stage, without)), key


def test_what_harms_less_is_preferred_and_taken_no_further_than_needed():
    stage, where, words = CASES["a large minibatch"]
    cfg = load(stage, ["policy=small", SMALL, *words])
    ((key, value),) = advise(stage, cfg, where).items()
    assert key == "train.micro_batch_size"
    assert where.overfull(where.plan(stage, changed(cfg, {key: 2 * value})))
    assert advise(stage, cfg, machine(1, 64)) is None  # the weights alone are too much


def test_auto_goes_by_the_share_that_the_run_itself_goes_by():
    cfg = load("train_rl", ["policy=small", "placement=one_gpu", "env.num_envs=64"])
    plan = machine(80, 64).plan("train_rl", cfg)
    assert plan.store == "prefix"
    just = (plan.used[HOST]["libraries"] + plan.used[HOST]["simulation"] + plan.used[HOST]["buffer"] / SHARE) / GIB
    assert [machine(80, room * just).plan("train_rl", cfg).store for room in (1.001, 0.999)] == ["prefix", "images"]
    frozen = load("train_sft", ["policy=small", "placement=one_gpu", "sft.train_expert_only=true"])
    kept = machine(1e6, 64).plan("train_sft", frozen)
    assert kept.kept > 0
    assert machine(kept.kept / 1e6, 64).plan("train_sft", frozen).kept == 0
