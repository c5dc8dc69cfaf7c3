"""What the command ``plan`` prints."""

import argparse
import json
from pathlib import Path

from rlft.config.load import changed
from rlft.config.schema import RunConfig
from rlft.plan.machine import GIB, RESERVE, Machine, advise, format_overrides, measure
from rlft.plan.memory import COMPONENTS, HOST, Assumptions, MemoryPlan, frame_count
from rlft.plan.network import decisions

STAGES = {"rl": ("train_rl",), "sft": ("train_sft",), "all": ("train_rl", "train_sft")}
SCALE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (0, ""))
VERDICTS = {True: "fits", False: "DOES NOT FIT", None: "?"}


def plan_page(cfg: RunConfig, options: argparse.Namespace) -> str:
    """Everything about the stages that were asked for; the options are :func:`rlft.cli.plan_options`."""
    sim_bytes = None if options.sim_gib is None else int(options.sim_gib * GIB)
    assumed = Assumptions(frames=options.frames or _frames_there(cfg), sim_bytes=sim_bytes)
    machine = Machine(measure(cfg, gpu_gib=options.gpu_gib, host_gib=options.host_gib), assumed)
    return "\n\n".join(stage_page(stage, cfg, machine) for stage in STAGES[options.stage]) + "\n"


def _frames_there(cfg: RunConfig) -> int | None:
    """Frames of the demonstrations, where they are collected already."""
    run = Path(cfg.output.dir) if cfg.output.dir else Path("outputs") / cfg.name
    facts = (Path(cfg.dataset.path) if cfg.dataset.path else run / "dataset") / "meta" / "info.json"
    return int(json.loads(facts.read_text(encoding="utf-8"))["total_frames"]) if facts.is_file() else None


def stage_page(stage: str, cfg: RunConfig, machine: Machine) -> str:
    """One stage: what it is, bytes per device, verdict, advice, FLOPs."""
    plan = machine.plan(stage, cfg)
    numbers = ", ".join(f"{_count(n)} {word}" for word, n in plan.network.count._asdict().items())
    lines = [_title(cfg, plan, machine), f"Parameters: {numbers}", "", *_memory(plan, machine), ""]
    lines += [*_advice(stage, cfg, plan, machine), ""]
    lines += _table([["FLOPs", ""], *([name, _count(value)] for name, value in plan.flops.items())])
    if plan.speedup:
        lines.append(f"An update with stored prefixes computes {plan.speedup:.2f} times less than with images.")
    return "\n".join(lines)


def _title(cfg: RunConfig, plan: MemoryPlan, machine: Machine) -> str:
    net, kept = plan.network, f"{plan.store}{' (by auto)' if cfg.buffer.store == 'auto' else ''}"
    how = [f"K = {cfg.num_steps}", f"{decisions(cfg)} decisions stored with their {kept}"]
    if plan.stage == "train_sft":
        frames = f"{'' if machine.assumed.frames else 'at most '}{frame_count(cfg, machine.assumed)} frames"
        frozen = ["expert only"] * cfg.sft.train_expert_only + ["prefixes kept"] * (plan.store == "prefix")
        how = [*frozen, f"batch {cfg.sft.batch_size}", frames]
    sizes = [f"cameras: {len(net.policy.cameras)}", f"N = {net.prefix_tokens}", f"H = {net.policy.horizon}"]
    return f"{plan.stage}: {', '.join([cfg.model.kind, cfg.model.dtype, *sizes, *how])}"


def _memory(plan: MemoryPlan, machine: Machine) -> list[str]:
    devices = list(plan.used)
    rows = [["GiB", *devices], ["", *(", ".join(plan.roles[device]) for device in devices)]]
    for name in COMPONENTS:
        missing = plan.unknown if name == "simulation" else ()
        rows.append([name, *("?" if d in missing else _gib(plan.used[d][name]) for d in devices)])
    rows.append(["total", *(_gib(plan.total(device)) for device in devices)])
    there = [machine.capacity[device] for device in devices]
    rows.append(["there are", *("?" if size is None else f"{size / GIB:.2f}" for size in there)])
    rows.append(["verdict", *(VERDICTS[machine.fits(plan, device)] for device in devices)])
    return [*_table(rows), f"The model's device holds most in the {plan.peak}; {RESERVE:.0%} of a device stay free."]


def _advice(stage: str, cfg: RunConfig, plan: MemoryPlan, machine: Machine) -> list[str]:
    lines = []
    if plan.unknown:
        lines.append(f"The simulation on {plan.unknown[0]} is not counted: it was never measured; --sim-gib adds it.")
    strange = [device for device in plan.used if machine.capacity[device] is None]
    if strange:
        lines.append(f"{', '.join(strange)}: not in this machine; --gpu-gib says what it has.")
    advised = advise(stage, cfg, machine)
    if advised is None:
        return [*lines, f"No setting that is known here makes it fit on {', '.join(machine.overfull(plan))}."]
    if advised:
        lines.append(f"It fits with: {format_overrides(advised)}")
    elif not strange:
        lines.append("It fits as it is.")
    if plan.stage == "train_rl" and plan.store == "images" and not cfg.model.train_vlm:
        stored = advised | {"buffer.store": "prefix", "buffer.device": HOST}
        if not machine.overfull(machine.plan(stage, changed(cfg, stored))):
            lines.append(f"It fits with its prefixes stored as well, and computes less: {format_overrides(stored)}")
    return lines


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [[row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))] for row in rows]
    return ["  ".join(line).rstrip() for line in lines]


def _gib(count: int) -> str:
    return f"{count / GIB:.2f}" if count >= GIB / 10 else f"{count / GIB:.2g}" if count else "-"


def _count(value: float) -> str:
    """Three digits and a letter."""
    unit, letter = next(x for x in SCALE if value >= x[0])
    if not unit or value >= 1000 * SCALE[0][0]:
        return f"{value:.3g}"
    return f"{value / unit:#.3g}".rstrip(".") + f" {letter}"
