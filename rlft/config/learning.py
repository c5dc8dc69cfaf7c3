"""The schema's sections about learning: exploration, value head, optimisers, buffer, PPO and SFT."""

from typing import Annotated, Any, Literal

from pydantic.dataclasses import dataclass

from rlft.config.base import SECTION, Bool, Float, Int, PluginName, opt


@dataclass(config=SECTION, frozen=True)
class ExplorationConfig:
    """Stochastic denoising: how the rollout explores and what its log-probability is."""

    method: Literal["flow_noise", "flow_sde", "flow_sde_single", "flow_cps"] = opt("flow_noise", "Sampler of rollouts.")
    std_min: Float = opt(0.08, "flow_noise: smallest std per denoise step, model units.", gt=0.0)
    std_max: Float = opt(0.16, "flow_noise: largest std per denoise step, model units.", gt=0.0)
    learn_std: Bool = opt(True, "flow_noise: learn the std from the expert's features; false keeps the geometric mean.")
    noise_level: Float = opt(0.5, "flow_sde, flow_cps: noise level a.", ge=0.0, le=1.0)
    logprob: Literal["sum", "mean"] = opt("sum", "sum: joint nats over steps and dimensions; mean: averaged over them.")
    density: Literal["executed", "masked", "chain"] = opt(
        "masked",
        "masked: noise only where it is executed and explored; else noise everywhere, and densities of those numbers "
        "alone, as published (executed), or of all that can have had an effect (chain; docs/algorithm.md).",
    )


@dataclass(config=SECTION, frozen=True)
class CriticConfig:
    """The value head."""

    hidden_dims: list[Int] = opt([256, 128], "Widths of the hidden layers.", min_length=1)
    inputs: Literal["features", "privileged", "both"] = opt("features", "Suffix features, privileged state, or both.")
    value_at: Literal["first", "all"] = opt(
        "first", "Features of the first denoise step, or the mean over all that draw, as published (docs/algorithm.md)."
    )


@dataclass(config=SECTION, frozen=True)
class OptimizerConfig:
    """AdamW."""

    lr: Float = opt(1e-4, "Learning rate.", gt=0.0)
    betas: list[Float] = opt([0.9, 0.999], "Adam's decay rates.", min_length=2, max_length=2)
    eps: Float = opt(1e-8, "Adam's epsilon.", gt=0.0)
    weight_decay: Float = opt(0.0, "Decoupled weight decay.", ge=0.0)


@dataclass(config=SECTION, frozen=True)
class BufferConfig:
    """The rollout buffer."""

    device: str = opt("cpu", "Device of the stored rollout: cpu, or cuda:N.")
    store: Literal["auto", "prefix", "images"] = opt(
        "auto", "Packed prefix KV, or images, encoded again; auto: prefix if the VLM is frozen and it fits."
    )
    prefix_dtype: Literal["auto", "float32", "bfloat16"] = opt("auto", "Type of the prefix; auto: the weights'.")


@dataclass(config=SECTION, frozen=True)
class TrainConfig:
    """Reinforcement learning."""

    objective: Annotated[str, PluginName("objectives")] = opt(
        "ppo", "What is optimised; package.module:Name for one of your own."
    )
    options: dict[str, Any] = opt({}, "Settings that the objective itself declares.")
    n_train_itr: Int = opt(30, "Iterations (rollout + update) in all.", ge=1)
    n_critic_warmup_itr: Int = opt(1, "First iterations that update the critic only.", ge=0)
    batch_size: Int = opt(80, "B, chunk decisions per optimiser step.", ge=1)
    micro_batch_size: Int | None = opt(None, "Rows per forward pass; null: the whole minibatch.", ge=1)
    update_epochs: Int = opt(4, "Passes over the rollout per iteration.", ge=1)
    gamma: Float = opt(0.97, "Discount.", gt=0.0, le=1.0)
    gamma_per: Literal["chunk", "step"] = opt("chunk", "What gamma discounts: a chunk decision or an environment step.")
    gae_lambda: Float = opt(0.95, "GAE's lambda, per chunk decision.", ge=0.0, le=1.0)
    clip_ratio: Float = opt(0.2, "PPO clip range of the probability ratio.", gt=0.0, lt=1.0)
    clip_log_ratio: Float = opt(20.0, "The log-ratio is clamped to this before exp, nats.", gt=0.0)
    normalize_advantage: Bool = opt(True, "Whiten advantages over the whole rollout.")
    ent_coef: Float = opt(0.0, "Weight of the entropy bonus (per-dimension nats).", ge=0.0)
    vf_coef: Float = opt(1.0, "Weight of the value loss.", ge=0.0)
    clip_value: Float | None = opt(None, "Clip range of the value change; null for none.", gt=0.0)
    target_kl: Float | None = opt(0.2, "Stop an iteration's updates above this KL, joint nats; null never.", gt=0.0)
    use_early_stop: Bool = opt(True, "Whether target_kl stops updates (false: it is only logged).")
    max_grad_norm: Float | None = opt(1.0, "Gradient clipping norm; null for none.", gt=0.0)
    recompute_old_logprob: Bool | None = opt(
        None, "Recompute the rollout's log-probs on the update path first; null: where products are not float32."
    )
    actor_optimizer: OptimizerConfig = opt(OptimizerConfig(lr=6e-5), "Optimiser of the policy.")
    critic_optimizer: OptimizerConfig = opt(OptimizerConfig(lr=1e-3), "Optimiser of the value head.")
    lr_schedule: Literal["constant", "linear", "cosine"] = opt("constant", "Learning-rate schedule over iterations.")
    max_skipped_updates: Int = opt(5, "Non-finite updates skipped in a row before the run stops (exit 3).", ge=1)
    val_freq: Int = opt(10, "Evaluate every N iterations; 0 only at the end.", ge=0)
    save_model_freq: Int = opt(10, "Save every N iterations; 0 only at the end.", ge=0)
    keep_checkpoints: Int = opt(3, "Newest checkpoints that are kept.", ge=1)
    skip_initial_eval: Bool = opt(False, "Do not evaluate before the first iteration.")


@dataclass(config=SECTION, frozen=True)
class GuardConfig:
    """What warns of a run that goes wrong, refuses it, or stops it (exit 3) before more is lost."""

    probe_episodes: Int = opt(32, "Episodes that probe model.path at first, with noise and without; 0: none.", ge=0)
    min_noisy_success: Float = opt(0.05, "Refuse to train where the probe with noise succeeds less.", ge=0.0, le=1.0)
    max_success_drop: Float | None = opt(
        0.2, "Stop this far below the best evaluation, where 95 % intervals are apart; null: never.", gt=0.0, le=1.0
    )
    max_first_log_ratio: Float | None = opt(
        None, "Stop at more |old - new log-prob| before the first step, nats; null: 0.01 in float32, else 0.05.", gt=0.0
    )
    max_idle_iterations: Int = opt(3, "Iterations in a row without an applied update before the run stops.", ge=1)
    warn_clip_fraction: Float | None = opt(0.3, "Warn above this share of clipped ratios; null: never.", gt=0.0)
    warn_clipped_actions: Float | None = opt(
        0.05, "Warn above this share of executed numbers beyond the controller's bounds; null: never.", gt=0.0
    )


@dataclass(config=SECTION, frozen=True)
class SftConfig:
    """Supervised fine-tuning by flow matching."""

    steps: Int = opt(1500, "Optimiser steps.", ge=1)
    batch_size: Int = opt(64, "Rows per step.", ge=1)
    optimizer: OptimizerConfig = opt(OptimizerConfig(lr=1e-3, weight_decay=1e-4), "Optimiser.")
    warmup_steps: Int = opt(100, "Linear rise of the learning rate, steps.", ge=0)
    final_lr_ratio: Float = opt(0.05, "Final learning rate over the peak (cosine decay).", ge=0.0, le=1.0)
    max_grad_norm: Float = opt(1.0, "Gradient clipping norm.", gt=0.0)
    max_skipped_updates: Int = opt(5, "Non-finite steps skipped in a row before the run stops (exit 3).", ge=1)
    train_expert_only: Bool = opt(False, "Freeze the VLM (prefix under no_grad).")
    cache_prefix: Bool | None = opt(None, "Encode each frame once, if the VLM is frozen; null: where all fit memory.")
    log_freq: Int = opt(50, "Log every N steps.", ge=1)
    save_freq: Int = opt(0, "Save a checkpoint every N steps, to resume from; 0 only at the end.", ge=0)
