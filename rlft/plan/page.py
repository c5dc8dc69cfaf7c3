"""A plan for a person to read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlft.config.schema import RunConfig
from rlft.plan.advice import advise, prefix_room, spell
from rlft.plan.machine import GIB, RESERVE, STAGES, Machine, measure
from rlft.plan.memory import COMPONENTS, HOST, Assumed, Plan, device_name, frame_count

SCALE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True)
class Options:
    """The words that only planning takes.

    Attributes:
        stages: what is planned.
        gpu_gib: memory of every GPU, GiB; None: measured.
        host_gib: memory of the host, GiB; None: measured.
        sim_gib: what simulation on a GPU takes there, GiB; None: left out.
        frames: frames of the demonstrations; None: their number times the time limit.
    """

    stages: tuple[str, ...]
    gpu_gib: float | None = None
    host_gib: float | None = None
    sim_gib: float | None = None
    frames: int | None = None


def split_options(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Take planning's own words out of a command line; the rest is what every script takes."""
    parser = argparse.ArgumentParser(prog="plan.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--stage", choices=("rl", "sft", "all"), default="all")
    for name in ("--gpu-gib", "--host-gib", "--sim-gib"):
        parser.add_argument(name, type=float)
    parser.add_argument("--frames", type=int)
    found, rest = parser.parse_known_args(argv)
    stages = STAGES if found.stage == "all" else (f"train_{found.stage}",)
    return Options(stages, found.gpu_gib, found.host_gib, found.sim_gib, found.frames), rest


def plan_page(cfg: RunConfig, options: Options) -> str:
    """Everything about the stages that were asked for."""
    devices = {HOST, *(device_name(x) for x in (cfg.sim.device, cfg.model.device, cfg.buffer.device))}
    sim_bytes = None if options.sim_gib is None else int(options.sim_gib * GIB)
    machine = Machine(
        measure(sorted(devices), gpu_gib=options.gpu_gib, host_gib=options.host_gib),
        Assumed(frames=options.frames or _frames_there(cfg), sim_bytes=sim_bytes),
    )
    return "\n\n".join(stage_page(stage, cfg, machine) for stage in options.stages) + "\n"


def _frames_there(cfg: RunConfig) -> int | None:
    """Frames of the demonstrations, where they are collected already."""
    run = Path(cfg.output.dir) if cfg.output.dir else Path("outputs") / cfg.name
    facts = (Path(cfg.dataset.path) if cfg.dataset.path else run / "dataset") / "meta" / "info.json"
    return int(json.loads(facts.read_text(encoding="utf-8"))["total_frames"]) if facts.is_file() else None


def stage_page(stage: str, cfg: RunConfig, machine: Machine) -> str:
    """One stage: what it is, bytes per device, verdict, advice, FLOPs."""
    plan = machine.plan(stage, cfg)
    lines = [_title(cfg, plan, machine), "", *_memory(plan, machine), "", *_advice(stage, cfg, plan, machine), ""]
    return "\n".join([*lines, *_flops(cfg, plan)])


def _title(cfg: RunConfig, plan: Plan, machine: Machine) -> str:
    size = plan.network
    cameras = f"{size.cameras} camera{'s' if size.cameras != 1 else ''}"
    text = f"{plan.stage}: {cfg.model.kind}, {size.dtype}, {cameras}, N = {size.prefix_tokens}, H = {size.horizon}"
    if plan.stage == "train_sft":
        frozen = ("expert only, prefixes kept" if plan.store == "prefix" else "expert only") + ", "
        frames = f"{'' if machine.assumed.frames else 'at most '}{frame_count(cfg, machine.assumed)} frames"
        return f"{text}, {frozen if cfg.sft.train_expert_only else ''}batch {cfg.sft.batch_size}, {frames}"
    rows = cfg.env.n_steps_rollout // cfg.act_steps * cfg.env.num_envs
    auto = " (by auto)" if cfg.buffer.store == "auto" else ""
    return f"{text}, K = {cfg.num_steps}, {rows} decisions stored with their {plan.store}{auto}"


def _memory(plan: Plan, machine: Machine) -> list[str]:
    devices = list(plan.used)
    rows = [["GiB", *devices], ["", *(", ".join(plan.roles[device]) for device in devices)]]
    for name in COMPONENTS:
        rows.append([name, *(_gib(plan.used[device][name]) for device in devices)])
        if name == "simulation":
            rows[-1][1:] = ["?" if d in plan.unknown else cell for d, cell in zip(devices, rows[-1][1:])]
    rows.append(["total", *(_gib(plan.total(device)) for device in devices)])
    capacity = [machine.capacity[device] for device in devices]
    rows.append(["there are", *("?" if c.nbytes is None else f"{c.nbytes / GIB:.2f}" for c in capacity)])
    rows.append(["", *(c.source for c in capacity)])
    verdicts = {True: "fits", False: "DOES NOT FIT", None: "?"}
    rows.append(["verdict", *(verdicts[machine.fits(plan, device)] for device in devices)])
    return [*_table(rows), f"Activations are largest in the {plan.peak}; {RESERVE:.0%} of a device stay free."]


def _advice(stage: str, cfg: RunConfig, plan: Plan, machine: Machine) -> list[str]:
    lines = []
    if plan.unknown:
        lines.append(f"The simulation on {plan.unknown[0]} is not counted: it was never measured; --sim-gib adds it.")
    strange = [device for device in plan.used if machine.capacity[device].nbytes is None]
    if strange:
        lines.append(f"{', '.join(strange)}: not in this machine; --gpu-gib says what it has.")
    advised = advise(stage, cfg, machine)
    if advised is None:
        lines.append(f"No setting that is known here makes it fit on {', '.join(machine.overfull(plan))}.")
    elif advised:
        lines.append(f"It fits with: {spell(advised)}")
    elif not strange:
        lines.append("It fits as it is.")
    if plan.stage == "train_rl" and plan.store == "images" and advised is not None:
        room = prefix_room(cfg, advised, machine)
        if room:
            lines.append(
                f"With its prefixes stored it fits as well, and an update computes {plan.flops.speedup:.1f} times less:"
            )
            lines.append(f"  {spell(room)}")
    return lines


def _flops(cfg: RunConfig, plan: Plan) -> list[str]:
    f = plan.flops
    if plan.stage == "train_sft":
        rows = [["FLOPs", ""], ["one step", _count(f.sft_step)]]
        if f.sft_encode:
            rows.append(["one frame's prefix, once", _count(f.sft_encode)])
        return _table([*rows, [f"all {cfg.sft.steps} steps", _count(cfg.sft.steps * f.sft_step)]])
    rows = [
        ["FLOPs", ""],
        ["prefix of one observation", _count(f.prefix)],
        ["one denoise step", _count(f.denoise)],
        ["prefix : denoise step", f"{f.prefix / f.denoise:.1f}"],
        ["update, one decision", _count(f.update)],
        ["an iteration's rollout", _count(f.rollout)],
        ["an iteration's updates", _count(f.updates)],
    ]
    if cfg.model.train_vlm:
        return _table(rows)
    sums = f"{_count(f.update_recomputed)} against {_count(f.update_stored)}"
    return [*_table(rows), f"A stored prefix saves the update a factor of {f.speedup:.2f} ({sums} a decision)."]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *cells in rows:
        lines.append("  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:]))]).rstrip())
    return lines


def _gib(count: int) -> str:
    if not count:
        return "-"
    return f"{count / GIB:.2f}" if count >= GIB / 10 else f"{count / GIB:.2g}"


def _count(value: float) -> str:
    for unit, letter in SCALE:
        if value >= unit:
            return (
                f"{value / unit:.{3 - len(str(int(value / unit)))}f} {letter}"
                if value < 1000 * unit
                else f"{value:.2e}"
            )
    return f"{value:.0f}"
