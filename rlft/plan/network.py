"""The network that a run's settings describe, on the meta device: its real modules, of which only shapes exist.

And what a decision leaves behind, in bytes: the objective makes one, and a rollout stores it.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlft.config.schema import RunConfig
from rlft.data.normalize import NormStats
from rlft.objective.base import Objective, build_objective
from rlft.placement import HOST, move
from rlft.plan.meter import Cost, measure
from rlft.policy.base import FlowPolicy, Prefix
from rlft.policy.pretrained import POLICY, build_policy, load_pretrained
from rlft.rollout.buffer import ChunkRows, MicroBatch, Rollout
from rlft.rows import TensorRows

META = torch.device("meta")
T = 2  # decisions of a blank rollout: a spread needs two
STATE, ACTION = 9, 7  # dimensions where nothing says; they change next to nothing


class ParamCount(NamedTuple):
    """Parameters that are trained (heads included), frozen, and dead: no action depends on them (language heads)."""

    trained: int
    frozen: int
    dead: int


class Network:
    """A policy with its objective, and what their passes cost. Nothing is computed, and no memory is taken.

    ``kept``: bytes of each tensor of an observation, as ``prefix`` and as ``images``. ``objective`` is None in
    supervised training, which ``vlm`` says trains the prefix.
    """

    def __init__(self, policy: FlowPolicy, objective: Objective | None, *, tokens: int, vlm: bool) -> None:
        self.policy, self.objective, self.tokens, self.vlm = policy, objective, tokens, vlm
        policy.set_trainable(vlm=True)
        dead = _numel(policy.parameters()) - _numel(policy.actor_parameters())
        policy.set_trainable(vlm=vlm)
        with torch.no_grad():
            self._inputs = policy.blank_inputs(1, tokens)
            self._prefix = policy.encode(self._inputs)
        self._seen: dict[str, TensorRows] = {"prefix": self._prefix, "images": self._inputs}
        self.kept = {store: [x.nbytes for x in rows.tensors().values()] for store, rows in self._seen.items()}
        self.prefix_tokens = self._prefix.tokens
        self._passes: dict[tuple[int, str, bool], Cost] = {}
        if objective is not None:
            blanks = {store: blank_rollout(objective, store, tokens) for store in self._seen}
            self.decision_bytes = {store: blank.nbytes() // (T * blank.E) for store, blank in blanks.items()}
            self._row = {store: blank.rows(torch.zeros(1, dtype=torch.int64)) for store, blank in blanks.items()}
            self.gathered = {store: [x.nbytes for x in row.tensors()] for store, row in self._row.items()}
            self.draws = [x.nbytes for x in blank_draws(objective).tensors().values()]
        self._loss(1, "images" if vlm else "prefix").backward()
        held = list((policy if objective is None else objective).parameters())
        self.trained = [p for p in held if p.grad is not None]
        self._low = [p for p in self.trained if p.dtype != torch.float32]  # with float32 masters beside them
        count = _numel(self.trained)
        self.count = ParamCount(count, _numel(held) - count - dead, dead)
        self.weight_bytes, self.gradient_bytes = sum(p.nbytes for p in held), 4 * count
        self.optimizer_bytes = 8 * count + 4 * _numel(self._low)

    @cached_property
    def encode(self) -> Cost:
        """Encode one observation, without gradients."""
        return measure(self._look)

    @cached_property
    def denoise(self) -> Cost:
        """One denoise step of one chunk, without gradients."""
        x = torch.zeros(1, self.policy.horizon, self.policy.action_width, device=META)
        with torch.no_grad():
            return measure(lambda: self.policy.velocity(self._prefix, x, x[:, 0, 0]))

    @cached_property
    def decide(self) -> Cost:
        """One observation: encode it, and decide."""
        objective = self._rl
        with torch.no_grad():
            return measure(lambda: objective.sample(self._look(), blank_draws(objective), blank_privileged(objective)))

    @cached_property
    def final_value(self) -> Cost:
        """The value of an observation that nothing is decided on."""
        objective = self._rl
        if not objective.bootstraps:
            return Cost(0, 0)
        state = blank_privileged(objective)
        return measure(lambda: objective.final_values(state, lambda: (self._look(), blank_draws(objective))))

    def train(self, rows: int, store: str, *, more: bool = False) -> Cost:
        """Forward and backward pass of so many rows; with ``more`` beside the gradients of others, added to them."""
        if store == "images" and not self.vlm:  # encoded without gradients, and then the same
            rest, before = self.train(rows, "prefix", more=more), self.gradient_bytes * more
            peak = max(before + rows * self.encode.peak, rest.peak + rows * sum(self.kept["images"]))
            return Cost(rest.flops + rows * self.encode.flops, peak)
        key = (rows, store, more)
        if key not in self._passes:
            self._passes[key] = measure(lambda: self._train(*key))
        return self._passes[key]

    @property
    def _rl(self) -> Objective:
        assert self.objective is not None, "supervised training decides nothing"
        return self.objective

    @torch.no_grad()
    def _look(self) -> Prefix:
        return self.policy.encode(self._inputs.map(torch.zeros_like))

    def _train(self, rows: int, store: str, more: bool) -> None:
        masters = {p: torch.zeros_like(p, dtype=torch.float32) for p in self._low} if more else {}
        for p in self.trained:
            p.grad = torch.zeros_like(p) if more and p.dtype == torch.float32 else None
        self._loss(rows, store).backward()
        for p in self._low:  # as rlft.learn.optimizers.MasterAdamW.collect
            if p.grad is not None:
                gradient, p.grad = p.grad.float(), None
                masters.setdefault(p, gradient)
        for p in self.trained:
            p.grad = None

    def _loss(self, rows: int, store: str) -> Tensor:
        def zeros(bundle: Any) -> Any:
            if bundle is None:
                return None
            return bundle.map(lambda x: torch.zeros(rows, *x.shape[1:], dtype=x.dtype, device=META))

        if self.objective is not None:
            row, length = self._row[store], torch.zeros(rows, dtype=torch.int64, device=META)
            batch = MicroBatch(zeros(row.prefix), zeros(row.inputs), zeros(row.trace), zeros(row.signal), length)
            return self.objective.loss(batch, self.objective.cfg.train.n_train_itr)[0]  # nothing warms up any more
        prefix = zeros(self._prefix) if store == "prefix" else self.policy.encode(zeros(self._inputs))
        actions = torch.zeros(rows, self.policy.horizon, self.policy.stats.act_dim, device=META)
        return self.policy.sft_loss(prefix, actions, actions[..., 0] > 0, torch.Generator())


def policy_on_meta(cfg: RunConfig, checkpoint: Path | None) -> FlowPolicy:
    """The policy of a checkpoint, or of the settings, as shapes alone."""
    if checkpoint is not None:
        return load_pretrained(checkpoint, device=META, model=cfg.model, verified=True)  # no weight is read
    state, action = [((0.0,) * width, (1.0,) * width) for width in (STATE, ACTION)]
    names = tuple(camera.name for camera in cfg.env.cameras)
    stats = NormStats(*state, *action, env_id="any", control_mode="any", cameras=names)
    return build_policy(cfg.model, stats, horizon=cfg.n_action_steps, device=META)


_BUILT: dict[str, Network] = {}


def network_of(stage: str, cfg: RunConfig, tokens: int | None = None, privileged_dim: int = 0) -> Network:
    """The network of a stage; the same one for all settings that leave it as it is, so that it is measured once.

    ``train_rl`` builds what ``model.path`` describes, ``train_sft`` takes its weights alone. ``tokens`` is the prompts'
    padded length (None: the checkpoint's, or an estimate), ``privileged_dim`` what observations bring.
    """
    sft, path = stage == "train_sft", None if cfg.model.path is None else Path(cfg.model.path)
    checkpoint = None if sft or path is None or not (path / POLICY).is_file() else path
    about = (cfg.act_steps, cfg.n_action_steps, cfg.num_steps, cfg.env.cameras, cfg.env.instruction)
    rl = (cfg.exploration, cfg.critic, cfg.train.objective, cfg.train.options)
    trained = cfg.sft.train_expert_only if sft else rl
    model, dtype = replace(cfg.model, device=""), cfg.buffer.prefix_dtype
    key = repr((sft, tokens, privileged_dim, model, checkpoint, dtype, about, trained))
    if key not in _BUILT:
        policy = policy_on_meta(cfg, checkpoint)
        if not sft and dtype != "auto":
            policy.prefix_dtype = getattr(torch, dtype)
        length = tokens or policy.expected_prompt_length(cfg.env.instruction)
        objective = None if sft else build_objective(cfg, policy, privileged_dim)
        vlm = not cfg.sft.train_expert_only if sft else cfg.model.train_vlm
        _BUILT[key] = Network(policy, objective, tokens=length, vlm=vlm)
    return _BUILT[key]


def _numel(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


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
    return decisions(cfg) * (blank.nbytes() // (T * blank.E))


def pinned_blocks(sizes: Iterable[int]) -> int:
    """What torch's pool of pinned host memory takes for tensors of these bytes: powers of two."""
    return sum(1 << (size - 1).bit_length() for size in sizes if size)
