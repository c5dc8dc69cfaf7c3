"""The GPU benchmark's rows about the model: update, sampler, SFT, memory against the plan, bf16, synchronisations.

Every ratio has both sides in this process, on the same weights, in turns. Every number is of random weights, whose
values do not change what they cost.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks import gpu_model as parts
from benchmarks import gpu_suspects
from benchmarks.gpu_env import ACT_STEPS, ACTION, Scale, environment
from benchmarks.gpu_model import Models, Side
from benchmarks.gpu_rows import LINES, Check, Found, claim, ratio, size
from rlft.config.load import changed
from rlft.config.schema import RunConfig
from rlft.data.dataset import DemoSet
from rlft.data.episode import DemoMeta
from rlft.learn.sft import SftTrainer
from rlft.placement import free_bytes, parse_device, synchronize
from rlft.policy.denoise import integrate_ode
from rlft.policy.pi0.policy import Pi0Input, Pi0Policy
from rlft.rollout.buffer import Rollout

METHODS = {"single step": "flow_sde_single", "chain": "flow_noise"}
LEROBOT_STEPS = 10  # K of lerobot's default


def checks(scale: Scale, name: str) -> list[Check]:
    """The rows of one model, the most valuable first."""
    long = scale.horizons[0]
    cameras = scale.cameras if name == "pi0" else scale.cameras[-1:]
    updates = {
        f"H={horizon}, {count} camera{'s' * (count > 1)}, {words}": (horizon, count, method)
        for count in cameras
        for horizon in scale.horizons
        for words, method in METHODS.items()
    }
    most, batches = cameras[0], scale.batches
    found = [
        Check("update", tuple(updates), partial(update, cases=updates), 80),
        Check("sampler", tuple(f"B={n}" for n in batches), partial(sampler, horizon=long, cameras=most), 50),
        Check("update memory", ("stored prefix", "recomputed"), partial(memory, horizon=long, cameras=most), 30),
        Check("bf16 log-ratio", ("as rolled out", "recomputed"), partial(bf16, horizon=long, cameras=most), 30),
    ]
    if name != "pi0":
        return found
    return [
        *found,
        Check("sft step", tuple(SFT), partial(sft, horizon=long), 50),
        *gpu_suspects.checks(scale, most),
    ]


def compile_checks(scale: Scale) -> list[Check]:
    """torch.compile, last: it takes long, and may not work at all."""
    return [Check("compile", ("sampler", "update"), partial(compiled, horizon=scale.horizons[-1]), 150)]


def update(models: Models, cases: dict[str, tuple[int, int, str]]) -> Iterator[Found]:
    """PPO's update from stored prefixes against the same update that encodes images again, once per micro-batch."""
    for case, (horizon, cameras, method) in cases.items():
        side = models.side(horizon, cameras, f"exploration.method={method}")
        stored, images = side.rollout("prefix"), side.rollout("images")
        pairs = parts.compare(partial(side.update, stored), partial(side.update, images), models.scale)
        sizes = f"N={prefix_tokens(stored)}, {stored.nbytes() / models.scale.rows / 1e6:.2f} MB a decision"
        published = models.name != "pi0" or case == next(iter(cases))  # π0's is of the first case alone
        line = LINES[f"update {models.name}"] if published else ""
        yield ratio(case, pairs, "samples/s", "recomputed", note=sizes, line=line)


def prefix_tokens(buffer: Rollout) -> int:
    """N of a rollout that stores prefixes."""
    return buffer.rows(torch.tensor([0])).prefix.mask.shape[1]


def sampler(models: Models, horizon: int, cameras: int) -> Iterator[Found]:
    """Our chunks against lerobot's ``sample_actions``, from the same prepared inputs and noise, K = 10."""
    cfg = models.settings(horizon, cameras)
    policy = models.policy(cfg)
    for n in models.scale.batches:
        inputs, noise = parts.prepared(policy, cfg, n), parts.noise_like(policy, n)
        words = parts.lerobot_inputs(policy, inputs)

        def waiting(sample: Callable[[], torch.Tensor], n: int = n) -> float:
            with torch.no_grad():
                sample()
            synchronize(policy.device)
            return float(n)

        ours = partial(sampled, policy, inputs, noise)
        theirs = partial(policy.model.sample_actions, *words, noise=noise, num_steps=LEROBOT_STEPS)
        with torch.no_grad():
            apart = float((ours() - theirs()).abs().max())
        pairs = parts.compare(partial(waiting, ours), partial(waiting, theirs), models.scale)
        milliseconds = f"ours {1e3 * n / sorted(pairs.ours)[len(pairs.ours) // 2]:.1f} ms, apart {apart:.1g}"
        yield ratio(f"B={n}", pairs, "chunks/s", "lerobot", note=milliseconds, facts={"largest_difference": apart})


@torch.no_grad()
def sampled(policy: Pi0Policy, inputs: Pi0Input, noise: torch.Tensor, steps: int = LEROBOT_STEPS) -> torch.Tensor:
    """Evaluation's chunk, ``[n, H, D]``."""
    return integrate_ode(policy, policy.encode(inputs), noise, steps)


def peak_bytes(device: torch.device, work: Callable[[], Any]) -> int:
    """The most memory that a call takes beyond what was there before, bytes."""
    if device.type != "cuda":
        from benchmarks.update_memory import peak_bytes as counted

        return counted(work)
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def memory(models: Models, horizon: int, cameras: int) -> Iterator[Found]:
    """What an update takes beyond weights, optimiser and rollout, over what ``scripts/plan.py`` says of it."""
    from rlft.plan.memory import Assumptions, device_name, plan_rl

    side = models.side(horizon, cameras)
    for case, store in (("stored prefix", "prefix"), ("recomputed", "images")):
        buffer = side.rollout(store)
        side.update(buffer)  # the optimiser's state is made at the first step
        measured = peak_bytes(parse_device(side.cfg.model.device), partial(side.update, buffer))
        one = changed(side.cfg, {"env.num_envs": 1})  # the plan's rollout phase must not hide its update phase
        plan = plan_rl(one, Assumptions(tokens=side.tokens), store)
        planned = plan.used[device_name(side.cfg.model.device)]
        yield against_plan(case, measured, planned, f"peak of {plan.peak}")


def against_plan(case: str, measured: int, planned: dict[str, int], note: str) -> Found:
    """A peak over the plan's gradients and activations."""
    wanted = planned["gradients"] + planned["activations"]
    return Found(
        case,
        measured / wanted,
        "x plan",
        f"measured {size(measured)}, planned {size(wanted)} ({note}); planned beside it: weights "
        f"{size(planned['weights'])}, optimiser {size(planned['optimizer'])}",
        facts={"measured_bytes": measured, "planned_bytes": dict(planned)},
    )


@torch.no_grad()
def first_log_ratio(side: Side, buffer: Rollout) -> float:
    """Largest |new - old| joint log-probability, nats, before any step, in micro-batches as the update takes them."""
    worst = 0.0
    for rows in buffer.row_blocks(side.cfg.train.micro_batch_size or side.cfg.train.batch_size):
        log_ratio, _ = side.objective.evaluate(buffer.rows(rows))
        worst = max(worst, float(log_ratio.abs().max()))
    return worst


def bf16(models: Models, horizon: int, cameras: int) -> Iterator[Found]:
    """How far rollout (all rows at once) and update (micro-batches) are apart before the first step."""
    side = models.side(horizon, cameras)
    buffer, clip = side.raw_rollout("prefix"), side.cfg.train.clip_ratio
    note = f"clip range {clip}, A d = {ACT_STEPS * ACTION}"
    yield claim("as rolled out", first_log_ratio(side, buffer), 0.1 * clip, "nats", note)
    side.objective.recompute_old(buffer)
    yield claim("recomputed", first_log_ratio(side, buffer), 0.05, "nats", note)


SFT = {  # case -> settings
    "expert only": ("sft.train_expert_only=true", "sft.cache_prefix=false"),
    "expert only, kept prefixes": ("sft.train_expert_only=true", "sft.cache_prefix=true"),
    "expert only, memory": ("sft.train_expert_only=true", "sft.cache_prefix=false"),
    "full, memory": ("sft.train_expert_only=false",),
}


def sft(models: Models, horizon: int) -> Iterator[Found]:
    """A step of SFT against lerobot's forward, backward and AdamW on the same weights; peaks over the plan."""
    from rlft.plan.memory import Assumptions, device_name, plan_sft

    for case, overrides in SFT.items():
        cfg = models.settings(horizon, 1, *overrides)
        policy, device, kept = models.policy(cfg), parse_device(cfg.model.device), "kept" in case
        demos = demonstrations(cfg, horizon, frames=4 * cfg.sft.batch_size)
        assumed = Assumptions(tokens=policy.prompt_length, frames=len(demos))
        plan = plan_sft(cfg, assumed, "prefix" if kept else "images")
        planned = plan.used[device_name(cfg.model.device)]
        needed, free = sum(planned.values()) - planned["weights"], free_bytes(device)
        if needed > 0.95 * free:
            yield Found(case, None, "", f"the plan is {size(needed)} beside the weights, {size(free)} free")
            continue
        trainer = SftTrainer(policy, demos, cfg.sft, seed=0)
        policy.train()
        trainer.step()
        if "memory" in case:
            trainer.optimizer.zero_grad(set_to_none=True)  # lest the last step's count as there before
            yield against_plan(case, peak_bytes(device, trainer.step), planned, "peak of a step")
            continue
        theirs = LerobotStep(policy, cfg)
        pairs = parts.compare(partial(stepped, trainer, device), theirs.run, models.scale)
        yield ratio(case, pairs, "samples/s", "lerobot", note=f"B={cfg.sft.batch_size}, 1 camera, H={horizon}")
        del trainer, theirs


def stepped(trainer: SftTrainer, device: torch.device) -> float:
    """One step of ours; its samples."""
    trainer.step()
    synchronize(device)
    return float(trainer.cfg.batch_size)


class LerobotStep:
    """lerobot's training step on the same weights; the VLM is frozen as the policy has it."""

    def __init__(self, policy: Pi0Policy, cfg: RunConfig) -> None:
        self.policy, self.n = policy, cfg.sft.batch_size
        self.inputs = parts.lerobot_inputs(policy, parts.prepared(policy, cfg, self.n))
        self.noise = parts.noise_like(policy, self.n)
        self.actions, self.t = torch.zeros_like(self.noise), torch.full((self.n,), 0.5, device=policy.device)
        self.parameters = policy.actor_parameters()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=float(parts.STILL))

    def run(self) -> float:
        """One step; its samples."""
        losses = self.policy.model.forward(*self.inputs, self.actions, self.noise, self.t)
        losses[..., :ACTION].mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        synchronize(self.policy.device)
        return float(self.n)


def demonstrations(cfg: RunConfig, horizon: int, frames: int) -> DemoSet:
    """Random demonstrations in memory: one episode."""
    n = frames + horizon
    env = environment(cfg, n)
    obs = env.reset(range(n), [0] * n)
    none: dict[str, Any] = {"env_id": "none", "control_mode": "none", "planner": "none", "fingerprint": "none"}
    meta = DemoMeta(**none, cameras=tuple(obs.images), state_terms=(), fps=20, run_seed=0)
    actions = torch.zeros(n, ACTION)
    images = {name: torch.as_tensor(frames_of) for name, frames_of in obs.images.items()}
    return DemoSet(meta, images, torch.as_tensor(obs.state), actions, torch.tensor([n]), list(obs.task), horizon)


def compiled(models: Models, horizon: int) -> Iterator[Found]:
    """The compiled denoise step against the eager one: sampler and update, after everything is compiled."""
    if models.scale.dry:
        for case in ("sampler", "update"):
            yield Found(case, None, "", "left out of the dry run: tests/contract/test_compiled_policy.py compiles")
        return
    from torch._dynamo.utils import counters

    eager, other = models.side(horizon, 1), models.side(horizon, 1)
    other.objective.actor.policy.compile_denoise_step()
    cfg, n = eager.cfg, models.scale.batches[-1]
    inputs, noise = (
        parts.prepared(eager.objective.actor.policy, cfg, n),
        parts.noise_like(eager.objective.actor.policy, n),
    )

    def sample(side: Side) -> float:
        sampled(side.objective.actor.policy, inputs, noise)
        synchronize(noise.device)
        return float(n)

    pairs = parts.compare(partial(sample, other), partial(sample, eager), models.scale, warm_up=2)
    yield ratio("sampler", pairs, "chunks/s", "eager", note=f"B={n}", line=LINES["sampler"])
    buffer = eager.rollout("prefix")
    pairs = parts.compare(partial(other.update, buffer), partial(eager.update, buffer), models.scale, warm_up=2)
    graphs = counters["stats"]["unique_graphs"]
    yield ratio("update", pairs, "samples/s", "eager", note=f"{graphs} graphs in all", facts={"graphs": graphs})
