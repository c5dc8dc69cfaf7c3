"""``python -m benchmarks.planner_success --task ID [ID ...] --seeds N``: how often the planners solve their tasks.

Every seed is one attempt, recorded as for a dataset (:func:`rlft_envs.record.record`), without rendering:
the actions are executed by the task's own controller, and success has to hold for two further steps. An attempt
that needs more steps than the task's time limit is a failure. The result of each task is written into
``benchmarks/results/planner_success.json``, beside those of the others.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlft.config.load import load
from rlft.files import to_json, write_text_atomically
from rlft.run.assembly.envs import env_settings
from rlft.run.provenance import git_commit, machine_facts
from rlft.statistics import wilson_interval
from rlft.types import DemoAttempt, EnvSettings, RewardSettings
from rlft_envs.record import RecordSettings, record
from rlft_envs.simulator import build_single_env
from rlft_envs.task import make_expert

OUT = Path(__file__).resolve().parent / "results" / "planner_success.json"


def settings_for(task: str, obj_set: str | None) -> EnvSettings:
    """A task's settings as for a dataset, but state-only; its time limit is that of its file in configs/task/."""
    words = [f"env.id={task}", "env.cameras=[]", *([] if obj_set is None else [f"env.make_kwargs.obj_set={obj_set}"])]
    settings = env_settings(load("collect_demos", words), 1)
    reward = RewardSettings(mode="sparse")
    return replace(settings, render_backend="none", privileged=False, reward=reward, reward_per_chunk=False)


def attempt_all(task: str, obj_set: str | None, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Attempt every seed in this process.

    Returns:
        per seed: ``seed``, ``instruction``, ``outcome``, ``message``, ``steps`` until solved, ``length``, ``seconds``.
    """
    import torch

    torch.set_num_threads(1)
    settings = settings_for(task, obj_set)
    env = build_single_env(settings)
    how = RecordSettings(max_steps=settings.max_episode_steps)
    out = []
    for seed in seeds:
        found = record(env, make_expert, DemoAttempt(seed, seed, seed), how)
        out.append(
            {
                "seed": seed,
                "instruction": found.instruction,
                "outcome": found.outcome,
                "message": found.message,
                "steps": found.success_step,
                "length": len(found.actions),
                "seconds": found.seconds,
            }
        )
    env.close()
    return out


def measure(task: str, obj_set: str | None, first: int, count: int, procs: int) -> dict[str, Any]:
    """Attempt ``count`` seeds from ``first`` on, in ``procs`` processes.

    Returns:
        what is kept of the task.
    """
    seeds = list(range(first, first + count))
    with multiprocessing.get_context("spawn").Pool(procs) as pool:
        parts = pool.starmap(attempt_all, [(task, obj_set, seeds[i::procs]) for i in range(procs)])
    attempts = sorted((one for part in parts for one in part), key=lambda one: one["seed"])
    good = [one for one in attempts if one["outcome"] == "success"]
    bad = [one for one in attempts if one["outcome"] != "success"]
    kinds = sorted({one["outcome"] for one in bad})
    texts = sorted({one["instruction"] for one in attempts})
    by_text = {text: [one["outcome"] == "success" for one in attempts if one["instruction"] == text] for text in texts}
    return {
        "obj_set": obj_set,
        "first_seed": first,
        "seeds": count,
        "successes": len(good),
        "ci95": wilson_interval(len(good), count),
        "failures": {kind: [one["seed"] for one in bad if one["outcome"] == kind] for kind in kinds},
        "lengths": _spread([one["length"] for one in good]),
        "steps_to_success": _spread([one["steps"] for one in good]),
        "seconds": _spread([one["seconds"] for one in attempts]),
        "by_instruction": {text: {"seeds": len(won), "successes": sum(won)} for text, won in by_text.items()},
        "git_commit": git_commit(Path(__file__)),
        "machine": machine_facts(),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    return {"mean": statistics.mean(values), "min": min(values), "max": max(values)} if values else None


def line(name: str, found: Mapping[str, Any]) -> str:
    """One result in a line of text."""
    low, high = found["ci95"]
    failures = ", ".join(f"{kind} {len(seeds)}" for kind, seeds in found["failures"].items()) or "none"
    lengths = found["lengths"]
    steps = "-" if lengths is None else f"{lengths['mean']:.1f} [{lengths['min']}, {lengths['max']}]"
    share = 100 * found["successes"] / found["seeds"]
    return (
        f"{name}: {found['successes']} of {found['seeds']}, {share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]; "
        f"steps {steps}; failures: {failures}"
    )


def main(argv: Sequence[str]) -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner_success", description=__doc__)
    parser.add_argument("--task", nargs="+", required=True, metavar="ID")
    parser.add_argument("--obj-set", choices=("train", "test", "all"), help="of the PutOnPlateInScene25 family")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first-seed", type=int, default=10_000)
    parser.add_argument("--procs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    for task in args.task:
        name = task if args.obj_set is None else f"{task} {args.obj_set}"
        started = time.monotonic()
        found = measure(task, args.obj_set, args.first_seed, args.seeds, args.procs)
        sys.stdout.write(f"{line(name, found)}; {time.monotonic() - started:.0f} s\n")
        sys.stdout.flush()
        kept = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
        write_text_atomically(
            args.out, json.dumps(to_json(dict(sorted({**kept, name: found}.items()))), indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
