"""Keys of the field's first π0-RL code that are spelled differently here, or have no meaning any more.

A key with a direct equivalent is accepted (:data:`ALIASES`); any other one is refused with the setting
that took its place (:data:`REPLACED`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

ALIASES = {
    "resume_dir": "resume",
    "dataset.normalization_path": "dataset_stats",
    "model.model_config_overrides.act_steps": "model.model_overrides.act_steps",
    "model.model_config_overrides.n_action_steps": "model.model_overrides.n_action_steps",
    "model.model_config_overrides.num_steps": "model.model_overrides.num_steps",
    "model.model_config_overrides.lang_tokenizer_path": "model.tokenizer_path",
    "model.train_expert_only": "sft.train_expert_only",
    "env.sensor_configs.shader_pack": "env.shader",
    "reward.reward_scale_const": "env.reward.scale",
    "rlft_config.act_steps": "act_steps",
    "rlft_config.num_steps": "num_steps",
    "rlft_config.num_steps_eval": "num_steps_eval",
    "rlft_config.noise_level": "exploration.noise_level",
    "exploration.level": "exploration.noise_level",
    "rlft_config.critic.hidden_dims": "critic.hidden_dims",
    "rlft_config.explore_noise_net.noise_logvar_min": "exploration.std_min",
    "rlft_config.explore_noise_net.noise_logvar_max": "exploration.std_max",
    "training.batch_size": "sft.batch_size",
    "training.max_steps": "sft.steps",
    "training.learning_rate": "sft.optimizer.lr",
    "training.weight_decay": "sft.optimizer.weight_decay",
    "training.warmup_steps": "sft.warmup_steps",
    "training.grad_clip_norm": "sft.max_grad_norm",
    "optimizer.betas": "sft.optimizer.betas",
    "optimizer.eps": "sft.optimizer.eps",
    "device.model_device": "model.device",
    "device.sim_device": "sim.device",
}

REPLACED = {
    "env.obs": "the pictures are env.cameras, the state vector is env.state_terms",
    "env.obs_mode": "what is rendered follows from env.cameras ([] for state only)",
    "env.sensor_configs": "use env.cameras and env.shader",
    "env.sim_config": "use env.make_kwargs (passed to the simulator's constructor)",
    "model.freeze_vision_encoder": "the vision-language prefix is frozen unless model.train_vlm=true",
    "model.deterministic": "evaluation always integrates the deterministic ODE",
    "model.config_overrides": "use model.model_overrides",
    "rlft_config.sample_mode": "use exploration.method",
    "rlft_config.sde_mode": "use exploration.method (reinflow is flow_noise, flow-grpo is flow_sde)",
    "rlft_config.noise_scheduler_type": "use exploration.learn_std",
    "rlft_config.explore_noise_net": "use exploration.std_min, exploration.std_max and exploration.learn_std",
    "rlft_config.normalize_denoising_horizon": "use exploration.logprob=mean",
    "rlft_config.normalize_action_chunk_full_dim": "use exploration.logprob=mean",
    "rlft_config.critic": "use critic.hidden_dims and critic.inputs; the critic has no dropout",
    "rlft_config.detach_feature_before_input_critic": "the critic's features are always detached",
    "rlft_config.average_critic_input_by_deployed_chunk": "the critic always averages over the executed steps",
    "rlft_config": "its settings are in exploration and critic",
    "buffer.dtype": "the chain is stored in float32, pictures in uint8; there is no choice",
    "reward": "use env.reward",
    "train.adv_method": "train.objective=ppo uses GAE; train.objective=grpo compares episodes of one start",
    "train.grad_accumulate": "train.batch_size is the effective batch; use train.micro_batch_size for memory",
    "train.use_bc_loss": "there is no behaviour-cloning term; remove the key",
    "train.bc_loss_type": "there is no behaviour-cloning term; remove the key",
    "train.bc_loss_coeff": "there is no behaviour-cloning term; remove the key",
    "train.clip_intermediate_actions": "the chain is never clipped, its log-probability would be wrong; remove the key",
    "train.max_noise_decay_ratio": "the noise has no schedule; use exploration.std_min and exploration.std_max",
    "train.max_noise_hold_ratio": "the noise has no schedule; use exploration.std_min and exploration.std_max",
    "train.actor_lr_scheduler": "use train.lr_schedule",
    "train.critic_lr_scheduler": "use train.lr_schedule",
    "train.log_freq": "every iteration is logged; remove the key",
    "train.save_trajs": "remove the key",
    "train.record_video_condition": "every evaluation records eval.num_videos episodes",
    "train.video_freq": "every evaluation records eval.num_videos episodes",
    "training": "use sft",
    "optimizer": "use sft.optimizer",
    "scheduler": "the supervised schedule is a cosine; use sft.warmup_steps and sft.final_lr_ratio",
    "device": "use sim.device, model.device and buffer.device",
    "output.save_videos": "use eval.num_videos (0 for none)",
    "output.save_data": "metrics.jsonl and the stage results are always written; remove the key",
    "output.info_on_video": "remove the key",
    "output.save_latest_only": "use train.keep_checkpoints",
    "logging": "remove the section; every iteration is logged",
    "memory": "remove the section; memory needs no clean-up by hand",
    "verbose": "remove the key",
    "verbose_each_step": "remove the key",
    "task_name": "use env.id, or task=NAME for a task file",
    "hydra": "rlft makes the run directory itself; use output.dir",
}


def current_path(path: str) -> str:
    """The present spelling of a dotted key; unchanged where it has no alias."""
    new = ALIASES.get(path)
    if new is None:
        return path
    log.info("%s is called %s here", path, new)
    return new


def advice(path: str) -> str | None:
    """What to use instead of a key that has gone, by the longest entry that covers it; None for an unknown key."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        key = ".".join(parts[:length])
        if key in REPLACED:
            return f"{path}: not a setting here: {REPLACED[key]}"
    return None


def with_current_paths(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a tree of settings in which every accepted old key stands under its present name."""
    out: dict[str, Any] = {key: _copy(value) for key, value in tree.items()}
    for old, new in ALIASES.items():
        found, value = _take(out, old.split("."))
        if found:
            put(out, new.split("."), value)
            log.info("%s is called %s here", old, new)
    return out


def put(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set a nested value, making the sections on the way."""
    for part in parts[:-1]:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}
        tree = tree[part]
    tree[parts[-1]] = value


def _take(tree: dict[str, Any], parts: list[str]) -> tuple[bool, Any]:
    """Remove a nested value, and the sections that it leaves empty."""
    if parts[0] not in tree:
        return False, None
    if len(parts) == 1:
        return True, tree.pop(parts[0])
    inner = tree[parts[0]]
    if not isinstance(inner, dict):
        return False, None
    found = _take(inner, parts[1:])
    if found[0] and not inner:
        del tree[parts[0]]
    return found


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, Mapping) else value
