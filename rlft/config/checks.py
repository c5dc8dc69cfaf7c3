"""Checks across settings. Pure: no file, no device, no simulator is touched.

Each message shows the arithmetic and the nearest values that work.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rlft.config.evaluation import IN_DISTRIBUTION
from rlft.config.randomization import enabled_effects
from rlft.config.schema import RunConfig

REAL_SIZE = ("pi0", "pi05")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def cross_checks(cfg: RunConfig) -> list[str]:
    """Every problem between settings that are each valid alone; an empty list where there is none."""
    return [problem for check in CHECKS for problem in check(cfg)]


def nearest_multiples(value: int, step: int) -> str:
    """The multiples of ``step`` around ``value``, at least one step, in words."""
    below, above = value // step * step, -(-value // step) * step
    return f"{below} or {above}" if below else f"{above}"


def chunks(cfg: RunConfig) -> list[str]:
    """The chunk executed fits the chunk predicted, and rollouts and episodes are whole numbers of chunks."""
    problems = []
    executed, predicted = cfg.act_steps, cfg.n_action_steps
    if predicted < executed:
        problems.append(
            f"n_action_steps = {predicted} < act_steps = {executed}: a chunk of {predicted} predicted steps cannot "
            f"give {executed} to execute; set n_action_steps={executed} or act_steps={predicted}"
        )
    for key, steps in (
        ("env.n_steps_rollout", cfg.env.n_steps_rollout),
        ("env.max_episode_len", cfg.env.max_episode_len),
    ):
        if steps % executed:
            problems.append(
                f"{key} = {steps} is no multiple of act_steps = {executed} "
                f"({steps} = {steps // executed} x {executed} + {steps % executed}); "
                f"the nearest that work are {nearest_multiples(steps, executed)}"
            )
    return problems


def batches(cfg: RunConfig) -> list[str]:
    """A minibatch fits the rollout buffer; a smaller last minibatch is fine."""
    problems = []
    decisions, envs, batch = cfg.env.n_steps_rollout // cfg.act_steps, cfg.env.num_envs, cfg.train.batch_size
    rows = decisions * envs
    if batch > rows > 0:
        needed_envs = -(-batch // decisions)
        problems.append(
            f"train.batch_size = {batch} is larger than the rollout: env.n_steps_rollout / act_steps x env.num_envs = "
            f"{cfg.env.n_steps_rollout} / {cfg.act_steps} x {envs} = {rows} chunk decisions; "
            f"set train.batch_size={rows} or less, or env.num_envs={needed_envs} or more"
        )
    micro = cfg.train.micro_batch_size
    if micro is not None and micro > batch:
        problems.append(
            f"train.micro_batch_size = {micro} > train.batch_size = {batch}: a forward pass takes part of a minibatch; "
            f"set it to {batch} or less, or null"
        )
    return problems


def evaluation(cfg: RunConfig) -> list[str]:
    """A suite is one table with one row to compare with."""
    problems: list[str] = []
    e = cfg.eval
    if e.suite is None:
        return problems
    names = [member.name for member in e.suite.members]
    for name in sorted({name for name in names if names.count(name) > 1 or not NAME.fullmatch(name)}):
        problems.append(
            f"eval.suite.members: {name!r} stands twice, or is no name for a file; each needs its own, of letters, "
            "digits, '.', '_' and '-'"
        )
    known = [member.name for member in e.suite.members if member.group == IN_DISTRIBUTION]
    if len(known) != 1:
        problems.append(
            f"eval.suite.members: {len(known)} are of the group {IN_DISTRIBUTION} {known}; exactly one is what the "
            "others are compared with"
        )
    return problems


def exploration(cfg: RunConfig) -> list[str]:
    """The learned noise has room between its bounds, and the stored rollout fits what trains."""
    problems = []
    low, high = cfg.exploration.std_min, cfg.exploration.std_max
    if low >= high:
        problems.append(f"exploration.std_min = {low:g} must be below exploration.std_max = {high:g}")
    if cfg.exploration.method != "flow_noise" and cfg.exploration.noise_level == 0.0:
        problems.append(
            f"exploration.noise_level = 0 with exploration.method = {cfg.exploration.method}: the chain would draw "
            "nothing and have no probability density; use one above 0, for instance 0.5"
        )
    if cfg.exploration.method == "flow_cps" and cfg.num_steps == 1:
        problems.append(
            "exploration.method = flow_cps with num_steps = 1: its last denoise step draws nothing, so the chain would "
            "have no probability density; set num_steps=2 or more, or another method"
        )
    if cfg.exploration.logprob == "mean" and cfg.exploration.density != "executed":
        problems.append(
            f"exploration.logprob = mean with exploration.density = {cfg.exploration.density}: the average is over the "
            "densities that the published code counts; set exploration.density=executed, or exploration.logprob=sum"
        )
    if cfg.buffer.store == "prefix" and cfg.model.train_vlm:
        problems.append(
            "buffer.store = prefix with model.train_vlm = true: a stored prefix is stale as soon as the VLM changes; "
            "set buffer.store=images (or auto), or model.train_vlm=false"
        )
    return problems


def overlap(cfg: RunConfig) -> list[str]:
    """Groups have environments, and something that can run beside the policy."""
    problems = []
    groups, envs = cfg.sim.num_groups, cfg.env.num_envs
    if groups is not None and groups > envs:
        problems.append(
            f"sim.num_groups = {groups} > env.num_envs = {envs}: a group needs an environment; set it to {envs} or less"
        )
    if cfg.sim.overlap and (groups or 2) < 2:
        problems.append("sim.overlap = true with sim.num_groups = 1: there is no other group; set sim.num_groups=2")
    if cfg.sim.overlap and envs < 2:
        problems.append("sim.overlap = true with env.num_envs = 1: there is nothing to overlap; set sim.overlap=null")
    if cfg.sim.overlap and cfg.sim.num_workers == 0 and cfg.sim.device == cfg.model.device:
        problems.append(
            f"sim.overlap = true with sim.num_workers = 0 and everything on {cfg.sim.device}: nothing runs beside the "
            "policy; set sim.num_workers=2, or sim.overlap=null"
        )
    return problems


def observations(cfg: RunConfig) -> list[str]:
    """Cameras are distinct and placed whole; the policy sees something, and real sizes see pictures."""
    problems = []
    names = [camera.name for camera in cfg.env.cameras]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"env.cameras: the name {name!r} stands twice; each camera needs its own")
    for i, camera in enumerate(cfg.env.cameras):
        given, missing = ("eye", "target") if camera.eye is not None else ("target", "eye")
        if (camera.eye is None) != (camera.target is None):
            problems.append(f"env.cameras.{i}.{given} is given without {missing}: a placement needs both, or neither")
    if not names and not cfg.env.state_terms:
        problems.append("env.cameras = [] and env.state_terms = []: the policy would observe nothing; give one of them")
    if not names and cfg.model.kind in REAL_SIZE:
        problems.append(f"env.cameras = [] with model.kind = {cfg.model.kind}: it needs at least one camera")
    return problems


def warm_up(cfg: RunConfig) -> list[str]:
    """Prefixes are kept only where they do not change."""
    if cfg.sft.cache_prefix and not cfg.sft.train_expert_only:
        return [
            "sft.cache_prefix = true with sft.train_expert_only = false: a prefix that trains changes with every step; "
            "set sft.train_expert_only=true, or sft.cache_prefix=null"
        ]
    return []


def model(cfg: RunConfig) -> list[str]:
    """Sizes belong to the small model; the real sizes have their own."""
    if cfg.model.kind in REAL_SIZE and cfg.model.small:
        return [
            f"model.small = {cfg.model.small} with model.kind = {cfg.model.kind}: sizes can be set only with "
            "model.kind=small; remove them"
        ]
    return []


def names(cfg: RunConfig) -> list[str]:
    """Names that become paths stay inside their directory."""
    problems = []
    if not NAME.fullmatch(cfg.name):
        problems.append(
            f"name = {cfg.name!r}: use at most 100 letters, digits, '.', '_' and '-', not starting with a sign"
        )
    if not NAME.fullmatch(cfg.eval.label):
        problems.append(f"eval.label = {cfg.eval.label!r}: use letters, digits, '.', '_' and '-'; it names a file")
    if cfg.eval.label.startswith("suite_"):
        problems.append(
            f"eval.label = {cfg.eval.label!r}: eval_suite_<label>.json is a suite's table; leave out 'suite_'"
        )
    parts = cfg.dataset.repo_id.split("/")
    if len(parts) > 2 or not all(NAME.fullmatch(part) and ".." not in part for part in parts):
        problems.append(
            f"dataset.repo_id = {cfg.dataset.repo_id!r}: expected name or user/name of letters, digits, . _ -"
        )
    for key, path in (
        ("output.dir", cfg.output.dir),
        ("dataset.path", cfg.dataset.path),
        ("model.path", cfg.model.path),
    ):
        if path is not None and (not path.strip() or "\0" in path):
            problems.append(f"{key} = {path!r}: not a path")
    if cfg.resume is not None and cfg.resume != "auto" and not Path(cfg.resume).is_dir():
        problems.append(f"resume = {cfg.resume!r}: expected auto, null, or a checkpoint directory that exists")
    return problems


def randomization(cfg: RunConfig) -> list[str]:
    """Picture randomisation that is on changes something, somewhere, and no prefix is kept of what it changes."""
    section = cfg.domain_randomization
    if section is None:
        return []
    problems, off = [], "or domain_randomization=null"
    if not enabled_effects(section):
        problems.append(
            "domain_randomization is on, but every effect is off: set one above 0, for instance "
            f"domain_randomization.brightness=0.2, take randomization=light, {off}"
        )
    if not (section.rollout or section.sft):
        problems.append(
            f"domain_randomization.rollout = domain_randomization.sft = false: it would run nowhere; set one, {off}"
        )
    cameras = [camera.name for camera in cfg.env.cameras]
    if not cameras:
        problems.append("domain_randomization with env.cameras = []: there are no pictures; domain_randomization=null")
    elif unknown := [name for name in section.cameras or [] if name not in cameras]:
        problems.append(f"domain_randomization.cameras = {unknown}: env.cameras has {', '.join(cameras)}")
    if section.sft and cfg.sft.cache_prefix:
        problems.append(
            "sft.cache_prefix = true with domain_randomization: a kept prefix would show every frame as it is; set "
            "sft.cache_prefix=null, or domain_randomization.sft=false"
        )
    return problems


CHECKS: tuple[Callable[[RunConfig], list[str]], ...] = (
    chunks,
    batches,
    evaluation,
    exploration,
    overlap,
    observations,
    warm_up,
    model,
    names,
    randomization,
)
