"""``python -m benchmarks.densities --out DIR``: what PPO learns with each ``exploration.density``, on the demo's task.

The demo's demonstrations and SFT, once with H = A = 5 and once with H = 10 > A = 5; then 30 PPO iterations on the
heavy cube from the same weights with each density, and an evaluation on 128 seeds that training never sees. A run that
is in DIR already is not run again: half an hour on two cores. The result is written into
``benchmarks/results/densities.json``.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlft.files import read_stage, to_json, write_text_atomically
from rlft.run.provenance import git_commit, machine_facts

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "densities.json"
HORIZONS, DENSITIES, ITERATIONS = (5, 10), ("executed", "masked", "chain"), 30


def run_stage(script: str, *overrides: str) -> None:
    """One stage of the demo in a process of its own, with this tree's code."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "envs")])
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), "--config-name", "demo_cpu", *overrides]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True)


def warm_up(out: Path, horizon: int) -> Path:
    """The warmed-up policy of a horizon; demonstrations are shared."""
    run = out / ("warm" if horizon == HORIZONS[0] else f"warm{horizon}")
    demos = out / "warm" / "dataset"
    if not demos.is_dir():
        run_stage("collect_demos", f"output.dir={out / 'warm'}")
    if not (run / "sft.json").is_file():
        run_stage("train_sft", f"output.dir={run}", f"n_action_steps={horizon}", f"dataset.path={demos}")
    return run / "sft" / "checkpoints" / "last" / "pretrained_model"


def fine_tune(out: Path, horizon: int, density: str, model: Path) -> dict[str, Any]:
    """PPO with one density; what is kept of its evaluation."""
    run = out / f"h{horizon}_{density}"
    if not (run / "rl.json").is_file():
        choice = [f"n_action_steps={horizon}", f"exploration.density={density}", f"train.n_train_itr={ITERATIONS}"]
        same = ["task=push_heavy_cube", "train.val_freq=0", "train.target_kl=null", "guard.probe_episodes=0"]
        run_stage("train_rl", f"output.dir={run}", f"model.path={model}", *choice, *same, "eval.num_videos=0")
    found = read_stage(run, "eval_rl")
    kept = ("successes", "episodes", "success", "ci95", "protocol_hash")
    return {"horizon": horizon, "act_steps": 5, "density": density, **{name: found[name] for name in kept}}


def main(argv: Sequence[str]) -> int:
    """Run what is missing, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the runs are, or go")
    out = parser.parse_args(argv).out.resolve()
    rows = [
        fine_tune(out, horizon, density, model)
        for horizon in HORIZONS
        for model in [warm_up(out, horizon)]
        for density in DENSITIES
    ]
    facts = {"iterations": ITERATIONS, "seed": 0, "git_commit": git_commit(ROOT), "machine": machine_facts()}
    text = json.dumps(to_json({"rows": rows, **facts}), indent=1) + "\n"
    write_text_atomically(OUT, text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
