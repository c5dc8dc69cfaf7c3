"""Warm-up samples/s: our optimiser step against lerobot's ``policy.forward``, backward, clipping and AdamW step.

Ours is the trainer's whole step, drawing and preparing its batch included. lerobot's batch is made by its own
processors and ready before the clock starts, so its loader costs it nothing. That both losses are equal, from equal
noise and times, is checked first.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks import real_ratio_model as model
from benchmarks.harness import Row, Settings, alternate, rate
from rlft.config.learning import OptimizerConfig, SftConfig
from rlft.data.dataset import DemoSet
from rlft.data.episode import DemoMeta
from rlft.learn.sft import SftTrainer
from rlft.policy.base import flow_times
from rlft.policy.pi0.policy import Pi0Policy

BUDGET_S = 50
NAME = "sft_step"
HORIZON = {"deep": 50, "demo": 5}
BATCH = {"deep": 6, "demo": 64}
GOALS = {"full": 1.2, "expert only, kept prefixes": 4.0, "expert only, prefixes anew": None}
FRAMES = 64
SECONDS = 0.2  # of work in one measurement, at least
UPDATE = OptimizerConfig(lr=1e-5, betas=[0.9, 0.95], weight_decay=0.01)  # lerobot's preset for π0
CLOSE = 1e-5  # largest difference of the losses


def run(settings: Settings) -> Iterator[Row]:
    """Everything trained; the expert alone, its prefixes kept; the expert alone, its prefixes encoded in every step."""
    for size in ("demo",) if settings.quick else ("deep", "demo"):
        torch.set_num_threads(model.threads(size))
        for case in GOALS:
            yield compare(size, case, settings.pairs)


def compare(size: str, case: str, pairs: int) -> Row:
    """One row: both sides in turns."""
    ours = OurSide(size, expert_only=case != "full", cached="kept" in case)
    default = ours.policy.config.tokenizer_max_length
    theirs = LerobotSide(ours, token_length=default)
    apart = loss_difference(ours, theirs)
    assert apart <= CLOSE, f"the sides' losses are {apart:.1e} apart"
    ours.fill()
    mine, other = steps_worth_measuring(ours.run), steps_worth_measuring(theirs.run)
    row = alternate(lambda: ours.run(mine), lambda: theirs.run(other), pairs).row(
        NAME,
        f"{case}: {size}, B={BATCH[size]}, H={HORIZON[size]}",
        unit="samples/s",
        baseline=f"lerobot's forward, backward and AdamW, prompts padded to {default} tokens",
        goal=GOALS[case],
        facts=model.facts(ours.policy, size, HORIZON[size]) | {"loss_difference": apart},
    )
    return explained(row, ours, theirs) if row.met is False else row


def steps_worth_measuring(run: Callable[[int], float]) -> int:
    """How many steps one measurement takes."""
    run(1)
    return max(1, round(SECONDS * rate(lambda: run(1) and 1.0)))


def explained(row: Row, ours: "OurSide", theirs: "LerobotSide") -> Row:
    """The row with where the time goes on either side."""
    mine, other = model.time_shares(ours.step), model.time_shares(theirs.step)
    text = (
        f"Matrix products, for which both sides call the same kernels, take {mine['matrix products']:.0%} of our time "
        f"and {other['matrix products']:.0%} of lerobot's."
    )
    return replace(row, explanation=text, facts={**row.facts, "time_shares": mine, "time_shares_lerobot": other})


class OurSide:
    """The trainer on demonstrations in memory.

    Args:
        size: a key of ``real_ratio_model.SIZES``.
        expert_only: the VLM is frozen.
        cached: its prefixes are kept.
    """

    def __init__(self, size: str, *, expert_only: bool, cached: bool) -> None:
        self.batch, self.expert_only = BATCH[size], expert_only
        self.policy = model.make_policy(size, HORIZON[size])
        self.demos = demos(self.policy)
        cfg = SftConfig(
            batch_size=self.batch,
            optimizer=UPDATE,
            warmup_steps=0,
            train_expert_only=expert_only,
            cache_prefix=cached if expert_only else None,
        )
        self.trainer = SftTrainer(self.policy, self.demos, cfg, seed=0)
        self.policy.train()

    def fill(self) -> None:
        """Encode every frame, as the first epoch does."""
        if self.trainer.prefixes is not None:
            self.trainer.prefixes.rows(torch.arange(len(self.demos)))

    def step(self) -> None:
        """One step."""
        self.trainer.step()

    def run(self, steps: int) -> float:
        """Several steps; the number of samples."""
        for _ in range(steps):
            self.step()
        return float(steps * self.batch)


class LerobotSide:
    """lerobot's policy with its own copy of the weights, and its training script's update.

    Args:
        ours: gives the weights and the batch.
        token_length: what prompts are padded to.
    """

    def __init__(self, ours: OurSide, *, token_length: int) -> None:
        from benchmarks.lerobot_side import lerobot_policy, make_batch, train_expert_only

        rows = ours.demos.rows(torch.arange(ours.batch))
        self.policy = lerobot_policy(ours.policy, own_weights=True)
        if ours.expert_only:
            train_expert_only(self.policy)
        self.batch = make_batch(ours.policy, rows.obs, token_length=token_length, actions=rows.actions)
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(),
            lr=UPDATE.lr,
            betas=(UPDATE.betas[0], UPDATE.betas[1]),
            eps=UPDATE.eps,
            weight_decay=UPDATE.weight_decay,
        )
        self.samples = float(ours.batch)

    def run(self, steps: int) -> float:
        """Several updates; the number of samples."""
        for _ in range(steps):
            self.step()
        return steps * self.samples

    def step(self) -> None:
        """One update."""
        self.policy.train()
        loss, _ = self.policy.forward(self.batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


@torch.no_grad()
def loss_difference(ours: OurSide, theirs: LerobotSide) -> float:
    """Both losses of the same rows from the same noise and times; the relative difference."""
    policy, rows = ours.policy, ours.demos.rows(torch.arange(ours.batch))
    prefix = policy.encode(policy.prepare(rows.obs))
    actions = policy.actions_from_env(rows.actions)
    mine = policy.sft_loss(prefix, actions, torch.zeros_like(rows.is_pad), torch.Generator().manual_seed(0))
    noise, t = draws(policy, ours.batch)
    core = theirs.policy.model
    core.sample_noise, core.sample_time = (lambda *_: noise), (lambda *_: t)
    other, _ = theirs.policy.forward(theirs.batch)
    del core.sample_noise, core.sample_time  # its own again
    return abs(float(mine - other)) / float(other)


def draws(policy: Pi0Policy, n: int) -> tuple[Tensor, Tensor]:
    """The noise and times that ``sft_loss`` draws from a generator seeded with 0."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, policy.horizon, policy.action_width, generator=generator)
    return noise, flow_times(n, generator)


def demos(policy: Pi0Policy) -> DemoSet:
    """Random demonstrations: one episode, in whose first rows no action is padded."""
    obs = model.observations(policy, FRAMES + policy.horizon)
    n = len(obs.task)
    meta = DemoMeta(
        env_id="none",
        control_mode="none",
        cameras=policy.cameras,
        state_terms=(),
        fps=20,
        planner="none",
        run_seed=0,
        fingerprint="none",
    )
    actions = torch.randn(n, model.ACTION, generator=torch.Generator().manual_seed(2))
    images = {name: torch.as_tensor(frames) for name, frames in obs.images.items()}
    return DemoSet(meta, images, torch.as_tensor(obs.state), actions, torch.tensor([n]), list(obs.task), policy.horizon)
