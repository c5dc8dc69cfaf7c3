"""Builds a small run directory with the formats of the real stages: real mp4 files, metrics with gaps and NaN."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
from helpers.eval_results import eval_result

from rlft.files import write_stage
from rlft.report.video import write_video
from rlft.statistics import wilson_interval

CONFIG = """\
name: push_seed3
seed: 3
env:
  id: PushCube-v1
  instruction: push <script>alert("x")</script> & go
  cameras:
  - name: base_camera
    height: 56
    width: 64
"""
ITERATIONS = 8


def rollout_frames(success: bool, length: int, size: tuple[int, int] = (57, 63)) -> np.ndarray:
    """A disc that moves right; green where it succeeds. uint8 ``[length, *size, 3]``."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frames = np.full((length, *size, 3), 200, dtype=np.uint8)
    for t, frame in enumerate(frames):
        disc = (rows - size[0] / 2) ** 2 + (columns - 8 - (size[1] - 16) * t / length) ** 2 < 60
        frame[disc] = (20, 140, 60) if success else (170, 60, 50)
    return frames


def write_evaluation(directory: Path, label: str, outcomes: list[bool], *args: object, **protocol: object) -> None:
    """One eval_<label>.json as the evaluator writes it; see :func:`eval_result`."""
    write_stage(directory, f"eval_{label}", asdict(eval_result(label, outcomes, *args, **protocol)))


def metric_lines() -> list[dict[str, object]]:
    """SFT, RL and evaluation lines; iteration 3 is missing, 5 has NaN, 8 was logged twice."""
    lines = [{"stage": "sft", "step": step, "loss": math.exp(-step / 300)} for step in range(50, 801, 50)]
    for step in [1, 2, 4, 5, 6, 7, 8, 8]:
        rolled = {"success": "nan" if step == 5 else step / 10, "episodes": 0 if step == 5 else 20}
        rolled |= {"return": 0.2 * step, "episode_length": 50 - 2.0 * step}
        line = {"stage": "rl", "step": step, **{f"rollout/{name}": value for name, value in rolled.items()}}
        line |= {"update/kl": 0.01 * step, "update/clip_fraction": 0.02 * step}
        lines.append(line | {"value/explained_variance": -30.0 if step == 1 else 1 - 1 / step})
    lines[-1]["rollout/success"] = 0.9
    low, high = wilson_interval(10, 20)
    lines.append({"stage": "eval", "step": 4, "success": 0.5, "ci_low": low, "ci_high": high, "mean_steps": 33.0})
    return [{"time": 1.7e9 + i, **line} for i, line in enumerate(lines)]


def make_run(directory: Path) -> Path:
    """A whole run: before 8 of 20, after 16 of 20, two seeds lost; videos of the first three episodes."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(CONFIG)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metric_lines()))
    collect = {"episodes": 90, "attempts": 100, "success_rate": 0.9, "seconds": 40.0, "longer_than_limit": 4}
    collect["lengths"] = {"mean": 21.5, "min": 16, "max": 40}
    collect["failures"] = {"no_plan": [7, 11, 13], "executed_but_failed": list(range(20, 27))}
    write_stage(directory, "collect", collect)
    write_stage(directory, "sft", {"steps": 800, "final_loss": 0.08, "seconds": 60.0, "parameters": 394_000})
    rl = {"iterations": ITERATIONS, "env_steps": 12_800, "seconds": 200.5}
    write_stage(directory, "rl", rl | {"env_steps_per_s": 131.5, "samples_per_s_update": 900.0})
    before = [i < 8 for i in range(20)]
    after = [i not in (0, 1, 18, 19) for i in range(20)]
    write_evaluation(directory, "sft", before)
    write_evaluation(directory, "rl", after)
    for label, outcomes in (("sft", before), ("rl", after)):
        for i in (0, 5, 12):
            won = outcomes[i]
            name = f"{label}_{i}_{'success' if won else 'failure'}.mp4"
            write_video(directory / "videos" / name, rollout_frames(won, 12 if won else 20), 20)
    facts = {"python": "3.12.1", "system": "Linux x86_64", "cpu_cores": 2, "memory_gib": 15.6, "torch_threads": 2}
    with (directory / "provenance.jsonl").open("w") as file:
        for stage, words in (("sft", ["env.instruction=a b"]), ("rl", ["seed=3"]), ("rl", ["seed=3"])):
            command = ["python", f"scripts/train_{stage}.py", *words]
            line = {"time": 1.7e9, "stage": stage, "command": command, "versions": {"torch": "2.11.0"}, **facts}
            file.write(json.dumps(line | {"git_commit": "0123abc"}) + "\n")
    return directory
