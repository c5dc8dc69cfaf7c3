"""Models for the GPU benchmark: real size with random weights on a GPU, the small sizes anywhere else.

Everything that it asks of the library goes through the few functions here. Observations come from
:class:`benchmarks.gpu_env.StillEnv`, which costs nothing: rollouts, decisions and updates are the library's own.
"""

import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks import ppo_parts
from benchmarks.gpu_env import ACT_STEPS, Scale, StillEnv, environment
from benchmarks.harness import Pairs, in_turns
from rlft.config.schema import RunConfig
from rlft.data.normalize import NormStats
from rlft.objective.base import build_objective
from rlft.placement import parse_device, synchronize
from rlft.policy.pi0.policy import Pi0Input, Pi0Policy
from rlft.policy.pi0.tokenizer import build_small_tokenizer
from rlft.rollout.buffer import Rollout
from rlft.rollout.sampler import RolloutSampler
from rlft.run.assembly.learner import build_placement
from rlft.run.assembly.policy import fresh_policy

DENOISE_STEPS = 4  # K
STILL = "1.0e-9"  # a learning rate too small to move a bfloat16 weight: every repetition does the same work
VOCAB = 384  # of the tokenizer that stands in for PaliGemma's, which is not free to download


@dataclass
class Side:
    """A run's parts on still images; made by :meth:`Models.side`.

    Attributes:
        cfg: its settings.
        env: the environments.
        objective: PPO, with the policy.
        updater: its optimisers.
    """

    cfg: RunConfig
    env: StillEnv
    objective: Any
    updater: Any
    tokens: int = 0

    def sampler(self, store: str, decisions: int = 1) -> RolloutSampler:
        """A sampler of T decisions that keeps ``prefix`` or ``images``."""
        changes = {"store_prefix": store == "prefix", "num_decisions": decisions}
        return ppo_parts.make_sampler(self.cfg, [self.env], self.objective, **changes)

    def rollout(self, store: str, decisions: int = 1) -> Rollout:
        """A finished rollout whose log-probabilities are the update path's: the first ratio is 1."""
        buffer = self.raw_rollout(store, decisions)
        self.objective.recompute_old(buffer)
        return buffer

    def raw_rollout(self, store: str, decisions: int = 1) -> Rollout:
        """A finished rollout as the sampler leaves it."""
        buffer, _ = self.sampler(store, decisions).collect(0)
        buffer.assign(self.objective.signal(buffer).rows)
        return buffer

    def update(self, buffer: Rollout) -> float:
        """One epoch over the rollout; the samples that passed."""
        samples = self.updater.update(buffer, 1, torch.Generator().manual_seed(0))["samples"]
        synchronize(parse_device(self.cfg.model.device))
        return float(samples)


@dataclass
class Models:
    """One set of weights, and policies of every horizon and number of cameras around it.

    Args:
        scale: sizes.
        name: ``pi0`` or ``pi05``.
    """

    scale: Scale
    name: str

    @cached_property
    def _tokenizer(self) -> str:
        """A directory with a tokenizer, as long as this object lives."""
        directory = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, directory)
        build_small_tokenizer(VOCAB).save_pretrained(directory)
        return directory

    def settings(self, horizon: int, cameras: int, *overrides: str) -> RunConfig:
        """The settings of ``train_rl.py`` for this model; the task only names cameras and lengths."""
        s = self.scale
        names = ", ".join(f"{{name: camera_{i}}}" for i in range(cameras))
        return ppo_parts.settings(
            [
                "task=push_cube",
                f"policy={s.kinds[self.name]}",
                "model.dtype=bfloat16",
                f"model.device={s.device}",
                f"model.tokenizer_path={self._tokenizer}",
                f"env.cameras=[{names}]",
                f"act_steps={ACT_STEPS}",
                f"n_action_steps={horizon}",
                f"num_steps={DENOISE_STEPS}",
                f"env.num_envs={s.rows}",
                f"env.n_steps_rollout={ACT_STEPS}",
                f"env.max_episode_len={ACT_STEPS}",
                "eval.num_envs=1",
                "sim.overlap=false",
                f"train.batch_size={s.rows}",
                f"train.micro_batch_size={s.micro}",
                "train.update_epochs=1",
                "train.n_critic_warmup_itr=0",
                "train.use_early_stop=false",
                "train.recompute_old_logprob=false",
                f"train.actor_optimizer.lr={STILL}",
                f"sft.optimizer.lr={STILL}",
                f"sft.batch_size={s.sft_batch}",
                "sft.warmup_steps=0",
                *overrides,
            ]
        )

    @cached_property
    def _first(self) -> Pi0Policy:
        """The weights. They are drawn where they will live: on a GPU that takes seconds, on a host minutes."""
        cfg = self.settings(self.scale.horizons[0], self.scale.cameras[0])
        logging.getLogger("rlft.data.normalize").setLevel(logging.ERROR)  # it warns of weights that know no data
        device = parse_device(cfg.model.device)
        with torch.device(device):
            made = fresh_policy(cfg, NormStats.from_spec(environment(cfg, 1).spec), device)
        assert isinstance(made, Pi0Policy)
        return made

    def policy(self, cfg: RunConfig) -> Pi0Policy:
        """A policy of other horizon and cameras around the same weights: no weight depends on either."""
        first = self._first
        first.config.chunk_size = first.config.n_action_steps = cfg.n_action_steps
        first.config.device = parse_device(cfg.model.device).type
        policy = Pi0Policy(first.model, NormStats.from_spec(environment(cfg, 1).spec), first.tokenizer)
        policy.prepare(environment(cfg, 1).reset([0], [0]))  # the tokenizer meets the prompt
        return policy

    def side(self, horizon: int, cameras: int, *overrides: str) -> Side:
        """The parts of a run with these weights."""
        from rlft.learn.updater import Updater

        cfg = self.settings(horizon, cameras, *overrides)
        env, policy = environment(cfg, cfg.env.num_envs), self.policy(cfg)
        build_placement(cfg)  # also sets the products' precision
        objective = build_objective(cfg, policy, env.spec.privileged_dim)
        return Side(cfg, env, objective, Updater(objective, cfg.train, cfg.guard), policy.prompt_length)


def prepared(policy: Pi0Policy, cfg: RunConfig, n: int) -> Pi0Input:
    """Model inputs of n rows."""
    inputs = policy.prepare(environment(cfg, n).reset(range(n), [0] * n))
    assert isinstance(inputs, Pi0Input)
    return inputs


def noise_like(policy: Pi0Policy, n: int) -> Tensor:
    """Standard normal ``[n, H, D]`` on the policy's device, the same in every call."""
    shape = (n, policy.horizon, policy.action_width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(policy.device)


def lerobot_inputs(policy: Pi0Policy, inputs: Pi0Input) -> list[Any]:
    """The same inputs as lerobot's core takes them: images in [-1, 1], prompts padded to its own length."""
    images = [image.float() / 127.5 - 1.0 for image in inputs.images.unbind(1)]
    present = [torch.ones(len(inputs), dtype=torch.bool, device=policy.device) for _ in images]
    short = policy.config.tokenizer_max_length - inputs.tokens.shape[1]
    tokens = torch.nn.functional.pad(inputs.tokens, (0, short))
    mask = torch.nn.functional.pad(inputs.token_mask, (0, short))
    return [images, present, tokens, mask, *([] if policy.is_pi05 else [inputs.state])]


def compare(ours: Callable[[], float], theirs: Callable[[], float], scale: Scale, warm_up: int = 1) -> Pairs:
    """Both sides in turns; each returns its units of work, and has waited for its device."""
    rates = in_turns({"ours": ours, "theirs": theirs}, scale.rounds, 0 if scale.dry else warm_up)
    return Pairs(rates["ours"], rates["theirs"])
