"""GRPO and RLOO: what an episode returned beyond others from the same start, instead of a critic.

G environments start each of their episodes from one seed. With R_i the return of member i::

    grpo   A_i = (R_i - mean R) / std R                 group relative (Shao et al., arXiv 2402.03300)
    rloo   A_i = R_i - mean of the other members' R     leave one out  (Ahmadian et al., arXiv 2402.14740)

and every decision of the episode has its A_i. There is no KL to a reference policy:
``train.target_kl`` bounds the change of an iteration.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlft.config.messages import typed
from rlft.config.schema import RunConfig
from rlft.objective.base import Signal
from rlft.objective.surrogate import Advantage, ClippedSurrogate
from rlft.policy.actor import Actor
from rlft.rollout.buffer import Rollout

ESTIMATORS = ("grpo", "rloo")
SAME = 1e-6  # reward units: returns within this std are equal up to rounding
CRITICS = {"critic_optimizer", "n_critic_warmup_itr", "vf_coef", "clip_value"}  # settings of train that are not read
UNUSED = CRITICS | {"gamma", "gamma_per", "gae_lambda", "normalize_advantage"}


@dataclass(frozen=True)
class Options:
    """What ``train.options`` may say."""

    group_size: int = 8  # G, environments that share a start; at least 2, and a divisor of `env.num_envs`
    estimator: str = "grpo"  # `grpo` or `rloo`


def group_advantages(returns: Tensor, estimator: str) -> Tensor:
    """Advantages of episodes within their group, from returns ``[..., G]``; zero where all returns are the same."""
    size, centred = returns.shape[-1], returns - returns.mean(-1, keepdim=True)
    if estimator == "rloo":  # R_i - (sum - R_i) / (G - 1) = G / (G - 1) (R_i - mean)
        return centred * (size / (size - 1))
    std = returns.std(-1, keepdim=True)
    return torch.where(std > SAME, centred / std, 0.0)


def _changed(section: Any) -> list[str]:
    """The settings of a section that are not as they usually are."""
    usual = vars(type(section)())
    return [key for key, value in vars(section).items() if key in usual and value != usual[key]]


class GRPO(ClippedSurrogate):
    """The clipped surrogate with group-relative advantages.

    The return of an episode is the plain sum of its rewards. A rollout is n = ``env.n_steps_rollout`` /
    ``env.max_episode_len`` time limits long, so that the first n episodes of every environment end in it: these count.
    What is played after them, because some ended early, may be cut off: to count it where a whole group happens to
    finish would prefer short episodes, so it never counts. A group in which a simulator failed, or all returns are the
    same, is left out.
    """

    Options = Options

    def __init__(self, actor: Actor, cfg: RunConfig, privileged_dim: int = 0) -> None:
        super().__init__(actor, cfg, privileged_dim)
        self.options = typed(Options, cfg.train.options, "train.options")
        self.group_size = self.options.group_size

    @classmethod
    def problems(cls, cfg: RunConfig) -> list[str]:
        """What stands against groups of whole episodes, and settings that only a critic uses."""
        options, env, problems = typed(Options, cfg.train.options, "train.options"), cfg.env, []
        if options.estimator not in ESTIMATORS:
            problems.append(f"train.options.estimator = {options.estimator!r}: must be {' or '.join(ESTIMATORS)}")
        size, steps, limit = options.group_size, env.n_steps_rollout, env.max_episode_len
        if size < 2:
            problems.append(f"train.options.group_size = {size}: an episode is compared with others; set 2 or more")
        elif env.num_envs % size:
            problems.append(
                f"env.num_envs = {env.num_envs} is no multiple of train.options.group_size = {size}; set "
                f"env.num_envs={-(-env.num_envs // size) * size}, or another group_size"
            )
        if not env.reset_at_iteration:
            problems.append("env.reset_at_iteration = false: members of a group start together; set it to true")
        if steps % limit:
            problems.append(
                f"env.n_steps_rollout = {steps} is no multiple of env.max_episode_len = {limit}: only whole episodes "
                f"can be compared; set env.n_steps_rollout={-(-steps // limit) * limit}"
            )
        idle = [f"critic.{key}" for key in _changed(cfg.critic)]
        idle += [f"train.{key}" for key in _changed(cfg.train) if key in UNUSED]
        if idle:
            problems.append(f"{', '.join(idle)}: train.objective = grpo has no critic and no discount; remove them")
        return problems

    def signal(self, rollout: Rollout) -> Signal:
        """An advantage per episode, for each of its decisions."""
        chunks, env = rollout.chunks, self.cfg.env
        ended = chunks.terminated | chunks.truncated | chunks.invalid
        number = ended.cumsum(0) - ended.long()  # of the episode that each decision is in, from 0: [T, E]
        first = torch.arange(env.n_steps_rollout // env.max_episode_len, device=number.device)
        inside = number == first[:, None, None]  # [n, T, E]
        rewards = chunks.rewards.sum(-1).masked_fill(chunks.invalid, 0.0)
        returns = (rewards * inside).sum(1).unflatten(1, (-1, self.group_size))  # [n, E / G, G]
        whole = (inside & ended & ~chunks.invalid).any(1).unflatten(1, (-1, self.group_size)).all(-1)
        spread = returns.std(-1)
        kept = whole & (spread > SAME)  # [n, E / G]
        advantage = group_advantages(returns, self.options.estimator).flatten(1)[:, None]
        counts = inside & kept.repeat_interleave(self.group_size, 1)[:, None]
        scalars = {
            "group/dropped": 1.0 - float(kept.float().mean()),
            "group/surplus": 1.0 - float(inside.any(0).float().mean()),
            "group/return_std": float(spread[kept].mean()),
        }
        return Signal(Advantage((advantage * counts).sum(0)), ~counts.any(0), scalars)
