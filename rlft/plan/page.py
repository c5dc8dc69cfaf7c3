"""What the command ``plan`` prints, and the options that only it takes. Light until a page is wanted."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rlft.config.schema import RunConfig

STAGES = {"rl": ("train_rl",), "sft": ("train_sft",), "all": ("train_rl", "train_sft")}


def split_options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take planning's own words out of a command line; the rest is what every command takes."""
    parser = argparse.ArgumentParser(prog="plan.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--stage", choices=STAGES, default="all")
    for name in ("--gpu-gib", "--host-gib", "--sim-gib"):
        parser.add_argument(name, type=float)
    parser.add_argument("--frames", type=int)
    return parser.parse_known_args(argv)


def plan_page(cfg: RunConfig, options: argparse.Namespace) -> str:
    """Everything about the stages that were asked for."""
    from rlft.plan.machine import GIB, Machine, measure  # they build the network, and take seconds to import
    from rlft.plan.memory import Assumptions
    from rlft.plan.stage_page import stage_page

    sim_bytes = None if options.sim_gib is None else int(options.sim_gib * GIB)
    assumed = Assumptions(frames=options.frames or _frames_there(cfg), sim_bytes=sim_bytes)
    machine = Machine(measure(cfg, gpu_gib=options.gpu_gib, host_gib=options.host_gib), assumed)
    return "\n\n".join(stage_page(stage, cfg, machine) for stage in STAGES[options.stage]) + "\n"


def _frames_there(cfg: RunConfig) -> int | None:
    """Frames of the demonstrations, where they are collected already."""
    run = Path(cfg.output.dir) if cfg.output.dir else Path("outputs") / cfg.name
    facts = (Path(cfg.dataset.path) if cfg.dataset.path else run / "dataset") / "meta" / "info.json"
    return int(json.loads(facts.read_text(encoding="utf-8"))["total_frames"]) if facts.is_file() else None
