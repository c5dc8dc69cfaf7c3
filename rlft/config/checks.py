"""Checks across settings. Pure: no file, no device, no simulator is touched.

Each message shows the arithmetic and the nearest values that work.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from rlft import plugins
from rlft.config.schema import IN_DISTRIBUTION, RunConfig, enabled_effects

FAMILY = ("Options", "stats_method", "problems", "image_size", "build", "save", "load", "check")  # PolicyFamily's
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def cross_checks(cfg: RunConfig) -> list[str]:
    """Every problem between settings that are each valid alone; an empty list where there is none."""
    return [problem for check in CHECKS for problem in check(cfg)]


def nearest_multiples(value: int, step: int) -> str:
    """The multiples of ``step`` around ``value``, at least one step, in words."""
    below, above = value // step * step, -(-value // step) * step
    return f"{below} or {above}" if below else f"{above}"


def chunks(cfg: RunConfig) -> Iterator[str]:
    """The chunk executed fits the chunk predicted, and rollouts and episodes are whole numbers of chunks."""
    executed, predicted = cfg.act_steps, cfg.n_action_steps
    if predicted < executed:
        yield (
            f"n_action_steps = {predicted} < act_steps = {executed}: a chunk of {predicted} predicted steps cannot "
            f"give {executed} to execute; set n_action_steps={executed} or act_steps={predicted}"
        )
    for name in ("n_steps_rollout", "max_episode_len"):
        steps = vars(cfg.env)[name]
        if steps % executed:
            yield (
                f"env.{name} = {steps} is no multiple of act_steps = {executed} "
                f"({steps} = {steps // executed} x {executed} + {steps % executed}); "
                f"the nearest that work are {nearest_multiples(steps, executed)}"
            )


def batches(cfg: RunConfig) -> Iterator[str]:
    """A minibatch fits the rollout buffer; a smaller last minibatch is fine."""
    decisions, envs, batch = cfg.env.n_steps_rollout // cfg.act_steps, cfg.env.num_envs, cfg.train.batch_size
    rows = decisions * envs
    if batch > rows > 0:
        yield (
            f"train.batch_size = {batch} is larger than the rollout: env.n_steps_rollout / act_steps x env.num_envs = "
            f"{cfg.env.n_steps_rollout} / {cfg.act_steps} x {envs} = {rows} chunk decisions; "
            f"set train.batch_size={rows} or less, or env.num_envs={-(-batch // decisions)} or more"
        )
    micro = cfg.train.micro_batch_size
    if micro is not None and micro > batch:
        remedy = f"a forward pass takes part of a minibatch; set it to {batch} or less, or null"
        yield f"train.micro_batch_size = {micro} > train.batch_size = {batch}: {remedy}"


def suite(cfg: RunConfig) -> Iterator[str]:
    """A suite is one table with one row to compare with."""
    if cfg.eval.suite is None:
        return
    names = [member.name for member in cfg.eval.suite.members]
    for name in sorted({name for name in names if names.count(name) > 1 or not NAME.fullmatch(name)}):
        remedy = "each needs its own, of letters, digits, '.', '_' and '-'"
        yield f"eval.suite.members: {name!r} stands twice, or is no name for a file; {remedy}"
    known = [member.name for member in cfg.eval.suite.members if member.group == IN_DISTRIBUTION]
    if len(known) != 1:
        found = f"{len(known)} are of the group {IN_DISTRIBUTION} {known}"
        yield f"eval.suite.members: {found}; exactly one is what the others are compared with"


def exploration(cfg: RunConfig) -> Iterator[str]:
    """The chain draws something, and has a probability density."""
    x, so = cfg.exploration, "draws nothing, so the chain would have no probability density"
    if x.std_min >= x.std_max:
        yield f"exploration.std_min = {x.std_min:g} must be below exploration.std_max = {x.std_max:g}"
    if x.method != "flow_noise" and x.noise_level == 0.0:
        yield f"exploration.noise_level = 0: {x.method} {so}; use a level above 0, for instance 0.5"
    if x.method == "flow_cps" and cfg.num_steps == 1:
        remedy = "set num_steps=2 or more, or another method"
        yield f"exploration.method = flow_cps with num_steps = 1: its last denoise step {so}; {remedy}"
    if x.logprob == "mean" and x.density != "executed":
        why = "the average is over the densities that the published code counts"
        remedy = "set exploration.density=executed, or exploration.logprob=sum"
        yield f"exploration.logprob = mean with exploration.density = {x.density}: {why}; {remedy}"


def prefixes(cfg: RunConfig) -> Iterator[str]:
    """A prefix is kept only where nothing changes it."""
    if cfg.buffer.store == "prefix" and cfg.model.train_vlm:
        stale = "a stored prefix is stale as soon as the VLM changes"
        remedy = "set buffer.store=images (or auto), or model.train_vlm=false"
        yield f"buffer.store = prefix with model.train_vlm = true: {stale}; {remedy}"
    if cfg.sft.cache_prefix and not cfg.sft.train_expert_only:
        moves = "a prefix that trains changes with every step"
        remedy = "set sft.train_expert_only=true, or sft.cache_prefix=null"
        yield f"sft.cache_prefix = true with sft.train_expert_only = false: {moves}; {remedy}"
    if cfg.sft.cache_prefix and cfg.domain_randomization is not None and cfg.domain_randomization.sft:
        why = "a kept prefix would show every frame as it is"
        remedy = "set sft.cache_prefix=null, or domain_randomization.sft=false"
        yield f"sft.cache_prefix = true with domain_randomization: {why}; {remedy}"


def overlap(cfg: RunConfig) -> Iterator[str]:
    """Groups have environments, and something that can run beside the policy."""
    groups, envs = cfg.sim.num_groups, cfg.env.num_envs
    if groups is not None and groups > envs:
        yield f"sim.num_groups = {groups} > env.num_envs = {envs}: a group needs an environment; set {envs} or less"
    if cfg.sim.overlap and (groups or 2) < 2:
        yield "sim.overlap = true with sim.num_groups = 1: there is no other group; set sim.num_groups=2"
    if cfg.sim.overlap and envs < 2:
        yield "sim.overlap = true with env.num_envs = 1: there is nothing to overlap; set sim.overlap=null"
    if cfg.sim.overlap and cfg.sim.num_workers == 0 and cfg.sim.device == cfg.model.device:
        alone = f"sim.num_workers = 0 and everything on {cfg.sim.device}: nothing runs beside the policy"
        yield f"sim.overlap = true with {alone}; set sim.num_workers=2, or sim.overlap=null"


def observations(cfg: RunConfig) -> Iterator[str]:
    """Cameras are distinct and placed whole; the policy sees something."""
    names = [camera.name for camera in cfg.env.cameras]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"env.cameras: the name {name!r} stands twice; each camera needs its own"
    for i, camera in enumerate(cfg.env.cameras):
        given, missing = ("eye", "target") if camera.eye is not None else ("target", "eye")
        if (camera.eye is None) != (camera.target is None):
            yield f"env.cameras.{i}.{given} is given without {missing}: a placement needs both, or neither"
    if not names and not cfg.env.state_terms:
        yield "env.cameras = [] and env.state_terms = []: the policy would observe nothing; give one of them"


def policy_family(cfg: RunConfig) -> Iterator[str]:
    """What stands behind ``model.kind`` makes policies; looked at before it is asked anything."""
    kind, family = cfg.model.kind, plugins.load("policies", cfg.model.kind, "model.kind")
    if missing := [name for name in FAMILY if not hasattr(family, name)]:
        yield f"model.kind = {kind}: no policy family, it has no {', '.join(missing)}; see docs/adding_a_policy.md"


def model(cfg: RunConfig) -> Iterator[str]:
    """The policy can follow its section."""
    cameras = [camera.name for camera in cfg.env.cameras]
    yield from plugins.load("policies", cfg.model.kind, "model.kind").problems(cfg.model, cameras)


def names(cfg: RunConfig) -> Iterator[str]:
    """Names that become paths stay inside their directory."""
    if not NAME.fullmatch(cfg.name):
        yield f"name = {cfg.name!r}: use at most 100 letters, digits, '.', '_' and '-', not starting with a sign"
    if not NAME.fullmatch(cfg.eval.label):
        yield f"eval.label = {cfg.eval.label!r}: use letters, digits, '.', '_' and '-'; it names a file"
    if cfg.eval.label.startswith("suite_"):
        yield f"eval.label = {cfg.eval.label!r}: eval_suite_<label>.json is a suite's table; leave out 'suite_'"
    parts = cfg.dataset.repo_id.split("/")
    if len(parts) > 2 or not all(NAME.fullmatch(part) and ".." not in part for part in parts):
        yield f"dataset.repo_id = {cfg.dataset.repo_id!r}: expected name or user/name of letters, digits, . _ -"
    paths = {"output.dir": cfg.output.dir, "dataset.path": cfg.dataset.path, "model.path": cfg.model.path}
    for key, path in paths.items():
        if path is not None and (not path.strip() or "\0" in path):
            yield f"{key} = {path!r}: not a path"
    if cfg.resume is not None and cfg.resume != "auto" and not Path(cfg.resume).is_dir():
        yield f"resume = {cfg.resume!r}: expected auto, null, or a checkpoint directory that exists"


def randomization(cfg: RunConfig) -> Iterator[str]:
    """Image randomisation that is on changes something, somewhere."""
    section, off = cfg.domain_randomization, "or domain_randomization=null"
    if section is None:
        return
    if not enabled_effects(section):
        remedy = "set one above 0, for instance domain_randomization.brightness=0.2, take randomization=light"
        yield f"domain_randomization is on, but every effect is off: {remedy}, {off}"
    if not (section.rollout or section.sft):
        yield f"domain_randomization.rollout = domain_randomization.sft = false: it would run nowhere; set one, {off}"
    cameras = [camera.name for camera in cfg.env.cameras]
    if not cameras:
        yield "domain_randomization with env.cameras = []: there are no images; set domain_randomization=null"
    elif unknown := [name for name in section.cameras or [] if name not in cameras]:
        yield f"domain_randomization.cameras = {unknown}: env.cameras has {', '.join(cameras)}"


CHECKS = (chunks, batches, suite, exploration, prefixes, overlap, observations, model, names, randomization)
