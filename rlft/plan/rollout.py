"""What a decision leaves behind, in bytes: the objective makes one, and a rollout stores it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rlft.config.schema import RunConfig
from rlft.objective.base import Objective
from rlft.objective.build import build_objective
from rlft.placement import HOST, move
from rlft.policy.base import FlowPolicy
from rlft.rollout.buffer import ChunkRows, Rollout
from rlft.rows import TensorRows

T = 2  # decisions of a blank rollout: a spread needs two


def decisions(cfg: RunConfig) -> int:
    """How many a rollout holds, T E."""
    return cfg.env.n_steps_rollout // cfg.act_steps * cfg.env.num_envs


def blank_draws(objective: Objective) -> TensorRows:
    """The random numbers of one decision, where the policy is."""
    return move(objective.draws([torch.Generator()]), objective.actor.policy.device)


def blank_privileged(objective: Objective) -> torch.Tensor | None:
    """The privileged state of one observation, where the policy is."""
    dim = objective.privileged_dim
    return torch.zeros(1, dim, device=objective.actor.policy.device) if dim else None


@torch.no_grad()
def blank_rollout(objective: Objective, store: str, tokens: int) -> Rollout:
    """A small rollout of zeros on the host, with what this objective stores and judges; its policy may be shapes alone.

    The objective is for this alone: it may remember what it has judged. ``store`` is ``prefix`` or ``images``,
    ``tokens`` the prompts' padded length.
    """
    policy, envs, steps = objective.actor.policy, objective.group_size, objective.actor.act_steps
    inputs = policy.blank_inputs(1, tokens)
    prefix = policy.encode(inputs)
    trace = objective.sample(prefix, blank_draws(objective), blank_privileged(objective)).trace

    def zeros(rows: TensorRows) -> TensorRows:
        return rows.map(lambda x: torch.zeros(envs, *x.shape[1:], dtype=x.dtype, device=HOST))

    ends, value = torch.ones(envs, dtype=torch.bool), torch.zeros(envs) if objective.bootstraps else None
    length, never = torch.full((envs,), steps), torch.zeros_like(ends)
    chunks = ChunkRows(torch.zeros(envs, steps), length, ends, never, never, value)
    kept = {"prefix": zeros(prefix)} if store == "prefix" else {"inputs": zeros(inputs)}
    rollout = Rollout(T, envs, HOST, HOST)
    for t in range(T):
        rollout.add(t, range(envs), trace=zeros(trace), chunks=chunks, **kept)
    rollout.assign(objective.signal(rollout).rows)
    return rollout


def decision_bytes(rollout: Rollout) -> int:
    """Bytes of one decision in a rollout."""
    return rollout.nbytes() // (rollout.T * rollout.E)


def rollout_bytes(
    cfg: RunConfig, policy: FlowPolicy, *, store: str, privileged_dim: int, tokens: int | None = None
) -> int:
    """Bytes of a whole rollout with its signal; equals :meth:`rlft.rollout.buffer.Rollout.nbytes`.

    There is one, for the whole run. Where it is pinned it takes whole pages, at most one more than this per tensor.
    ``store`` is ``prefix`` or ``images``, ``privileged_dim`` P of the simulator state that observations bring, or 0,
    ``tokens`` the prompts' padded length (None: the policy's estimate).
    """
    length = tokens or policy.expected_prompt_length(cfg.env.instruction)
    blank = blank_rollout(build_objective(cfg, policy, privileged_dim), store, length)
    return decisions(cfg) * decision_bytes(blank)


def pinned_blocks(sizes: Iterable[int]) -> int:
    """What torch's pool of pinned host memory takes for tensors of these bytes: powers of two."""
    return sum(1 << (size - 1).bit_length() for size in sizes if size)
