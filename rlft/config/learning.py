"""The schema's sections about learning: exploration, value head, optimisers, buffer, PPO and supervised warm-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlft.config.declare import opt


@dataclass
class ExplorationConfig:
    """Stochastic denoising: how the rollout explores and what its log-probability is."""

    method: str = opt(
        "flow_noise",
        "Sampler of the rollout.",
        choices=("flow_noise", "flow_sde", "flow_sde_single", "flow_cps"),
    )
    std_min: float = opt(0.08, "flow_noise: smallest std per denoise step, model units.", gt=0.0)
    std_max: float = opt(0.16, "flow_noise: largest std per denoise step, model units.", gt=0.0)
    learn_std: bool = opt(True, "flow_noise: learn the std from the expert's features; false keeps the geometric mean.")
    noise_level: float = opt(0.5, "flow_sde, flow_cps: noise level a.", ge=0.0, le=1.0)
    logprob: str = opt(
        "sum", "sum: joint nats over steps and dimensions; mean: averaged over them.", choices=("sum", "mean")
    )
    density: str = opt(
        "masked",
        "executed: noise everywhere, densities of the executed and explored numbers alone, as published; masked: noise "
        "only in those; chain: noise everywhere, and every density that can have had an effect (docs/algorithm.md).",
        choices=("executed", "masked", "chain"),
    )


@dataclass
class CriticConfig:
    """The value head."""

    hidden_dims: list[int] = opt([256, 128], "Widths of the hidden layers.", min_len=1)
    inputs: str = opt(
        "features",
        "features: the expert's suffix features; privileged: simulator state; both: side by side.",
        choices=("features", "privileged", "both"),
    )
    value_at: str = opt(
        "first",
        "features: of the first denoise step, which no draw has touched; or all: the mean over the drawing steps, as "
        "published, which takes 13 % of the policy's gradient away (docs/algorithm.md).",
        choices=("first", "all"),
    )


@dataclass
class OptimizerConfig:
    """AdamW."""

    lr: float = opt(1e-4, "Learning rate.", gt=0.0)
    betas: list[float] = opt([0.9, 0.999], "Adam's decay rates.", length=2)
    eps: float = opt(1e-8, "Adam's epsilon.", gt=0.0)
    weight_decay: float = opt(0.0, "Decoupled weight decay.", ge=0.0)


@dataclass
class BufferConfig:
    """The rollout buffer."""

    device: str = opt("cpu", "Device of the stored rollout: cpu, or cuda:N.")
    store: str = opt(
        "auto",
        "prefix: packed prefix KV; images: model inputs, prefix recomputed; auto: prefix if the VLM is frozen and "
        "it fits.",
        choices=("auto", "prefix", "images"),
    )
    prefix_dtype: str = opt(
        "auto",
        "Type of the prefix that rollout and update read; auto: the weights'.",
        choices=("auto", "float32", "bfloat16"),
    )


@dataclass
class TrainConfig:
    """Reinforcement learning."""

    objective: str = opt("ppo", "What is optimised: ppo, grpo, or package.module:Name of an objective of your own.")
    options: dict[str, Any] = opt({}, "Settings that the objective itself declares.")
    n_train_itr: int = opt(30, "Iterations (rollout + update) in all.", ge=1)
    n_critic_warmup_itr: int = opt(1, "First iterations that update the critic only.", ge=0)
    batch_size: int = opt(80, "B, chunk decisions per optimiser step.", ge=1)
    micro_batch_size: int | None = opt(None, "Rows per forward pass; null: the whole minibatch.", ge=1)
    update_epochs: int = opt(4, "Passes over the rollout per iteration.", ge=1)
    gamma: float = opt(0.97, "Discount.", gt=0.0, le=1.0)
    gamma_per: str = opt(
        "chunk", "What gamma discounts: a chunk decision or an environment step.", choices=("chunk", "step")
    )
    gae_lambda: float = opt(0.95, "GAE's lambda, per chunk decision.", ge=0.0, le=1.0)
    clip_ratio: float = opt(0.2, "PPO clip range of the probability ratio.", gt=0.0, lt=1.0)
    clip_log_ratio: float = opt(20.0, "The log-ratio is clamped to this before exp, nats.", gt=0.0)
    normalize_advantage: bool = opt(True, "Whiten advantages over the whole rollout.")
    ent_coef: float = opt(0.0, "Weight of the entropy bonus (per-dimension nats).", ge=0.0)
    vf_coef: float = opt(1.0, "Weight of the value loss.", ge=0.0)
    clip_value: float | None = opt(None, "Clip range of the value change; null for none.", gt=0.0)
    target_kl: float | None = opt(0.2, "Stop an iteration's updates above this KL, joint nats; null never.", gt=0.0)
    use_early_stop: bool = opt(True, "Whether target_kl stops updates (false: it is only logged).")
    max_grad_norm: float | None = opt(1.0, "Gradient clipping norm; null for none.", gt=0.0)
    recompute_old_logprob: bool | None = opt(
        None,
        "Recompute the rollout's log-probs on the update path before the epochs; null: where products are not float32 "
        "(model.dtype, model.matmul).",
    )
    actor_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=6e-5), metadata={"doc": "Optimiser of the policy."}
    )
    critic_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-3), metadata={"doc": "Optimiser of the value head."}
    )
    lr_schedule: str = opt(
        "constant", "Learning-rate schedule over iterations.", choices=("constant", "linear", "cosine")
    )
    max_skipped_updates: int = opt(5, "Non-finite updates skipped in a row before the run stops (exit 3).", ge=1)
    val_freq: int = opt(10, "Evaluate every N iterations; 0 only at the end.", ge=0)
    save_model_freq: int = opt(10, "Save every N iterations; 0 only at the end.", ge=0)
    keep_checkpoints: int = opt(3, "Newest checkpoints that are kept.", ge=1)
    skip_initial_eval: bool = opt(False, "Do not evaluate before the first iteration.")


@dataclass
class GuardConfig:
    """What warns of a run that goes wrong, refuses it, or stops it (exit 3) before more is lost."""

    probe_episodes: int = opt(
        32,
        "Evaluation episodes before the first update of model.path, with exploration noise and without; 0: no probe.",
        ge=0,
    )
    min_noisy_success: float = opt(
        0.05, "Refuse to train where success with exploration noise is below this in the probe.", ge=0.0, le=1.0
    )
    max_success_drop: float | None = opt(
        0.2,
        "Stop where evaluation is this far below its best and their 95 % intervals are apart; null: never.",
        gt=0.0,
        le=1.0,
    )
    max_first_log_ratio: float | None = opt(
        None,
        "Stop where old and new log-probability differ by more before the first step, joint nats; null: 0.01 in "
        "float32, 0.05 in lower precision after recomputation.",
        gt=0.0,
    )
    max_idle_iterations: int = opt(3, "Iterations in a row without an applied update before the run stops.", ge=1)
    warn_clip_fraction: float | None = opt(0.3, "Warn above this share of clipped ratios; null: never.", gt=0.0)
    warn_clipped_actions: float | None = opt(
        0.05, "Warn above this share of executed action numbers beyond the controller's bounds; null: never.", gt=0.0
    )


@dataclass
class SftConfig:
    """Supervised warm-up by flow matching."""

    steps: int = opt(1500, "Optimiser steps.", ge=1)
    batch_size: int = opt(64, "Rows per step.", ge=1)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-3, weight_decay=1e-4), metadata={"doc": "Optimiser."}
    )
    warmup_steps: int = opt(100, "Linear learning-rate warm-up, steps.", ge=0)
    final_lr_ratio: float = opt(0.05, "Final learning rate over the peak (cosine decay).", ge=0.0, le=1.0)
    max_grad_norm: float = opt(1.0, "Gradient clipping norm.", gt=0.0)
    max_skipped_updates: int = opt(5, "Non-finite steps skipped in a row before the run stops (exit 3).", ge=1)
    train_expert_only: bool = opt(False, "Freeze the VLM (prefix under no_grad).")
    cache_prefix: bool | None = opt(
        None, "Frozen VLM: encode each frame once and keep its prefix; null: where all frames fit in memory."
    )
    log_freq: int = opt(50, "Log every N steps.", ge=1)
    save_freq: int = opt(0, "Save a checkpoint every N steps, to resume from; 0 only at the end.", ge=0)
