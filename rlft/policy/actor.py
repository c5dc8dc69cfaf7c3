"""The policy that explores: draw a denoising chain, and evaluate a stored chain again, by the same code.

Shapes: n rows, K denoise steps of which r draw (1 of a single-step sampler), H predicted and A executed action steps, D
numbers in each, d of them explored, F suffix features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlft.policy.base import FlowPolicy, Prefix
from rlft.policy.denoise import ChainLogProb, Schedule, normal_entropy, normal_log_prob, transition_mean
from rlft.policy.heads import NoiseHead
from rlft.rows import TensorRows


@dataclass
class Draws(TensorRows):
    """The random numbers of a decision, n rows."""

    noise: Tensor  # float32 standard normal `[n, K + 1, H, D]`: the start, then one draw per step
    stochastic_step: Tensor  # int64 `[n]`, the step of a single-step sampler that draws (ignored by the others)


@dataclass
class ChainTrace(ChainLogProb, TensorRows):
    """What a drawn chain leaves: enough to evaluate it again, and its log-probability then.

    In two parts, because how many action steps count is known when the chunk has been executed. They include the
    initial draw, which cancels in every ratio.
    """

    chain: Tensor  # float32 `[n, K + 1, H, D]`, from noise (index 0) to the action chunk (index K), model units
    stochastic_step: Tensor  # int64 `[n]`, see :class:`Draws`


@dataclass
class ChainSample:
    """One decision per row."""

    trace: ChainTrace
    features: Tensor  # float32 `[n, r, F]`, what the network saw at each drawing step: mean over A; detached
    mean_std: Tensor  # float32 scalar, average std of the explored numbers (for the log)

    @property
    def actions(self) -> Tensor:
        """The drawn chunk, model units, ``[n, H, D]``."""
        return self.trace.chain[:, -1]


@dataclass
class ChainEvaluation:
    """A stored chain under the current weights: as in :class:`ChainSample`; differentiable but for the features."""

    log_prob: ChainLogProb
    features: Tensor
    entropy: Tensor  # float32 `[n]`, nats per explored number (mean over steps and dimensions)


class Actor(nn.Module):
    """A flow policy with its exploration noise.

    What is drawn and what is counted (``density``), in a chunk of H steps and D dimensions of which A steps and the
    explored dimensions reach the robot:

    - ``executed``: noise in every number, densities of the explored numbers of executed steps, as published. The other
      numbers feed the executed ones through the network, so their noise is variance that nothing pays for, and the
      gradient through them is lost.
    - ``masked``: noise in the explored numbers of the first A steps alone. The others follow the flow; what their
      means do to later steps has no gradient.
    - ``chain``: noise in every number, and every density counts but those of the last denoise step that never reach
      the robot. The gradient of the drawn chain is exact; each of its terms adds variance.

    Frozen dimensions draw no noise in any of them.

    Args:
        noise: std head of flow_noise.
        explored_dims: indices inside D that are explored.
        frozen_dims: indices that are executed but not explored (a gripper that the task never moves).
        density: ``executed``, ``masked`` or ``chain``.
    """

    explored_dims: Tensor
    noise_mask: Tensor

    def __init__(
        self,
        policy: FlowPolicy,
        noise: NoiseHead,
        schedule: Schedule,
        act_steps: int,
        explored_dims: Sequence[int],
        frozen_dims: Sequence[int] = (),
        *,
        density: str = "masked",
    ) -> None:
        super().__init__()
        self.policy, self.noise, self.schedule = policy, noise, schedule
        self.act_steps, self.density = act_steps, density
        self.register_buffer("explored_dims", torch.tensor(list(explored_dims), dtype=torch.int64), persistent=False)
        mask = torch.ones(policy.horizon, policy.action_width)
        if density == "masked":
            mask.zero_()[:act_steps, list(explored_dims)] = 1.0
        mask[:, list(frozen_dims)] = 0.0
        self.register_buffer("noise_mask", mask, persistent=False)

    def parameters_that_train(self) -> list[nn.Parameter]:
        """The policy's, and the noise head's where it learns."""
        return [*self.policy.actor_parameters(), *(p for p in self.noise.parameters() if p.requires_grad)]

    def draws(self, generators: Sequence[torch.Generator]) -> Draws:
        """The random numbers of one decision per generator, on the host: a row depends on its own generator alone."""
        steps = self.schedule.num_steps
        shape = (steps + 1, self.policy.horizon, self.policy.action_width)
        rows = [(torch.randn(shape, generator=g), torch.randint(steps, (), generator=g)) for g in generators]
        noise, stochastic = zip(*rows, strict=True)
        return Draws(torch.stack(noise), torch.stack(stochastic))

    def step_dist(self, prefix: Prefix, x: Tensor, k: Tensor, stochastic: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and std ``[n, H, D]`` of denoise step ``k [n]``, int64, from x ``[n, H, D]``; features ``[n, H, F]``.

        The only place where rollout and update meet the network, whose prefix has n rows, or m with ``n = m * r`` (see
        FlowPolicy.velocity). A row that is not ``stochastic [n]`` follows the ODE: take its mean, ignore its std.
        """
        s = self.schedule
        velocity, features = self.policy.velocity(prefix, x, s.t[k])
        noise_coef = torch.where(stochastic, s.noise_coef[k], s.t[k + 1])  # with c = t' the mean is an Euler step
        mean = transition_mean(x, velocity, s.t[k], s.t[k + 1], noise_coef)
        std = self.noise(features) if s.learned_std else s.std[k][:, None, None].expand_as(mean)
        return mean, std, features

    @torch.no_grad()
    def sample(self, prefix: Prefix, noise: Tensor, stochastic_step: Tensor) -> ChainSample:
        """Draw a chunk per row of the prefix; the other arguments as in :class:`Draws`."""
        s = self.schedule
        x = noise[:, 0]
        chain, parts, pooled, stds = [x], [self._initial_log_prob(x)], [], []
        for k in range(s.num_steps):
            step = torch.full_like(stochastic_step, k)
            draws_here = k in s.stochastic_steps
            drawn = stochastic_step == k if s.single else torch.full_like(step, draws_here, dtype=torch.bool)
            mean, std, features = self.step_dist(prefix, x, step, drawn)
            # Rows that draw and rows that do not go through the network together; where() picks, nothing is gathered.
            x = torch.where(drawn[:, None, None], mean + std * self.noise_mask * noise[:, k + 1], mean)
            chain.append(x)
            if draws_here:
                parts.append(self._step_log_prob(x, mean, std, step == s.num_steps - 1, drawn))
                pooled.append(drawn[:, None] * self._pool(features))
                stds.append(self._explored(std).mean())
        seen = torch.stack(pooled, 1)
        seen = seen.sum(1, keepdim=True) if s.single else seen  # all but the one that drew are zero
        trace = ChainTrace(**vars(_total(parts)), chain=torch.stack(chain, 1), stochastic_step=stochastic_step)
        return ChainSample(trace, seen, torch.stack(stds).mean())

    def evaluate(self, prefix: Prefix, chain: Tensor, stochastic_step: Tensor) -> ChainEvaluation:
        """Log-probability and entropy of stored chains (see :class:`ChainTrace`), all drawing steps in one pass."""
        s, n = self.schedule, chain.shape[0]
        if s.single:
            rows = torch.arange(n, device=chain.device)
            k, x, x_next = stochastic_step, chain[rows, stochastic_step], chain[rows, stochastic_step + 1]
        else:  # the drawing steps are 0 .. r - 1, so that slices do: a list of indices would go to the device
            r = len(s.stochastic_steps)
            k = torch.arange(r, device=chain.device).repeat(n)
            # [n, r, H, D] -> [n * r, H, D]: the r steps of a chain stand side by side, behind the prefix row they share
            x, x_next = chain[:, :r].flatten(0, 1), chain[:, 1 : r + 1].flatten(0, 1)
        everywhere = torch.ones_like(k, dtype=torch.bool)
        mean, std, features = self.step_dist(prefix, x, k, everywhere)
        steps = self._step_log_prob(x_next, mean, std, k == s.num_steps - 1, everywhere)
        steps = ChainLogProb(*(a.unflatten(0, (n, -1)).sum(1) for a in (steps.latent, steps.action)))
        entropy = normal_entropy(self._explored(std)).unflatten(0, (n, -1)).mean((1, 2, 3))  # [n * r, A, d] -> [n]
        log_prob = _total([self._initial_log_prob(chain[:, 0]), steps])
        return ChainEvaluation(log_prob, self._pool(features).unflatten(0, (n, -1)), entropy)

    @torch.no_grad()
    def first_features(self, prefix: Prefix, noise: Tensor) -> Tensor:
        """Features ``[n, F]`` of the first denoise step of chains that begin at ``noise[:, 0]``: one network pass."""
        first = torch.zeros(len(noise), dtype=torch.int64, device=noise.device)
        _, _, features = self.step_dist(prefix, noise[:, 0], first, first == first)
        return self._pool(features)

    def _pool(self, features: Tensor) -> Tensor:
        """Average suffix features over the executed steps, detached: ``[n, H, F] -> [n, F]``."""
        return features[:, : self.act_steps].detach().mean(1)

    def _explored(self, numbers: Tensor) -> Tensor:
        """The explored numbers of the first A steps, ``[n, H, D] -> [n, A, d]``; by index, never by position."""
        return numbers[:, : self.act_steps].index_select(-1, self.explored_dims)

    def _step_log_prob(self, x: Tensor, mean: Tensor, std: Tensor, last: Tensor, drawn: Tensor) -> ChainLogProb:
        """Log-density of one transition per row, to what was drawn, x ``[n, H, D]``, from a normal of that shape.

        ``last``, bool ``[n]``, are transitions that end in the action: of these only what reaches the robot counts.
        Rows that are not ``drawn``, bool ``[n]``, have no density.
        """
        action = normal_log_prob(self._explored(x), self._explored(mean), self._explored(std)).sum(-1)
        if self.density == "executed":
            return ChainLogProb(torch.zeros_like(action[:, 0]), action.masked_fill(~drawn[:, None], 0.0))
        if self.density == "masked":  # nothing else is drawn
            latent = action.sum(-1)
        else:
            latent = (normal_log_prob(x, mean, std) * self.noise_mask).sum((1, 2))
        latent = latent.masked_fill(last | ~drawn, 0.0)
        return ChainLogProb(latent, action.masked_fill(~(last & drawn)[:, None], 0.0))

    def _initial_log_prob(self, x: Tensor) -> ChainLogProb:
        """Log-density of the starting noise of what reaches the robot; it depends on no weight."""
        start = self._explored(x)
        density = normal_log_prob(start, torch.zeros_like(start), torch.ones_like(start)).sum(-1)
        return ChainLogProb(torch.zeros_like(density[:, 0]), density)


def _total(parts: Sequence[ChainLogProb]) -> ChainLogProb:
    return ChainLogProb(sum(part.latent for part in parts), sum(part.action for part in parts))  # type: ignore[arg-type]
