"""The page that a person reads, from the command line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlft.config.load import load
from rlft.plan.page import Options, plan_page, split_options

ROOT = Path(__file__).resolve().parents[3]
PLAN = [sys.executable, str(ROOT / "scripts" / "plan.py")]
DOCS = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")


def page(stages, *overrides, gpu=24.0, host=64.0):
    return plan_page(load("plan", overrides), Options(stages, gpu_gib=gpu, host_gib=host, frames=1000))


def run(*words):
    return subprocess.run([*PLAN, *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", re.findall(r"\.venv/bin/python scripts/plan\.py (.*)", DOCS))
def test_the_documented_pages_are_what_the_command_prints(command):
    done = run(*command.split())
    assert done.returncode == 0, done.stderr
    block = DOCS.split(f"scripts/plan.py {command}\n")[1].split("```")[0]
    if block.strip():
        assert done.stdout.split() == block.split()


@pytest.mark.parametrize("kind", ["pi0", "pi05", "small", "small_pi05"])
@pytest.mark.parametrize("cameras", [1, 2, 3])
def test_every_size_with_every_number_of_cameras(kind, cameras):
    pictures = f"env.cameras=[{', '.join(f'{{name: camera{i}}}' for i in range(cameras))}]"
    text = page(("train_rl", "train_sft"), f"policy={kind}", "placement=three_gpus", pictures)
    assert f"{cameras} camera" in text
    for word in ("train_rl: ", "train_sft: ", "weights", "activations", "buffer", "FLOPs", "A stored prefix saves"):
        assert word in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_the_verdict_stands_under_its_device():
    text = page(("train_rl",), "policy=pi0", "placement=three_gpus", "algo=pi_rl", "train.micro_batch_size=null")
    header = next(line for line in text.splitlines() if line.startswith("GiB"))
    verdict = next(line for line in text.splitlines() if line.startswith("verdict"))
    end = header.index("cuda:1") + len("cuda:1")
    assert verdict[:end].endswith("DOES NOT FIT")
    assert "It fits with: train.micro_batch_size=" in text
    assert "never measured" in text


def test_a_device_that_is_not_here_gets_no_verdict():
    text = page(("train_rl",), "policy=pi0", "model.device=cuda:61", gpu=None)
    assert "cuda:61: not in this machine" in text
    assert "It fits as it is" not in text


def test_planning_is_light():
    code = (
        "import sys; sys.argv = ['plan.py', 'policy=pi0', 'model.device=cuda:0', '--gpu-gib', '24']\n"
        "import runpy\n"
        f"try: runpy.run_path({str(ROOT / 'scripts' / 'plan.py')!r}, run_name='__main__')\n"
        "except SystemExit as done: assert not done.code\n"
        "heavy = [m for m in ('torch', 'lerobot', 'transformers', 'mani_skill') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "train_rl: pi0" in done.stdout


def test_planning_takes_what_training_takes():
    options, rest = split_options(
        ["--stage", "sft", "task=toy", "--gpu-gib", "24", "--config-name", "demo_cpu", "--cfg", "seed=1"]
    )
    assert (options.stages, options.gpu_gib, options.host_gib) == (("train_sft",), 24.0, None)
    assert rest == ["task=toy", "--config-name", "demo_cpu", "--cfg", "seed=1"]
    assert run("policy=pi9").returncode == 2


def test_the_demonstrations_that_are_there_are_counted(tmp_path):
    facts = tmp_path / "meta" / "info.json"
    facts.parent.mkdir()
    facts.write_text('{"total_frames": 321}')
    cfg = load("plan", [f"dataset.path={tmp_path}"])
    assert "batch 64, 321 frames" in plan_page(cfg, Options(("train_sft",), host_gib=8.0))
    cfg = load("plan", [f"dataset.path={tmp_path / 'nowhere'}"])
    assert "at most 20000 frames" in plan_page(cfg, Options(("train_sft",), host_gib=8.0))
