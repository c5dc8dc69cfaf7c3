"""The schema of every setting: its type, default, allowed range and meaning, in one place.

The sections about learning are in :mod:`rlft.config.learning`. ``docs/configuration.md`` is generated from both,
and :mod:`rlft.config.load` validates against them.
Key names keep the spelling of the field's first π0-RL code (``act_steps``, ``n_action_steps``, ...);
docs/concepts.md maps them to lerobot's and openpi's words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlft.config.declare import opt
from rlft.config.evaluation import EvalConfig
from rlft.config.learning import BufferConfig, CriticConfig, ExplorationConfig, GuardConfig, SftConfig, TrainConfig
from rlft.config.randomization import DomainRandomizationConfig


@dataclass
class CameraConfig:
    """One rendered camera."""

    name: str = opt("base_camera", "The simulator's camera name; also the policy's image key.")
    height: int | None = opt(None, "Rows, pixels; null: the model's resolution.", ge=8, le=4096)
    width: int | None = opt(None, "Columns, pixels; null: the model's resolution.", ge=8, le=4096)
    aspect: float = opt(1.0, "Width over height where the size is the model's (null); padded to a square.", gt=0.0)
    fov: float | None = opt(None, "Vertical field of view, radians; null keeps the task's.", gt=0.0, lt=3.1)
    eye: list[float] | None = opt(None, "Camera position, metres; null keeps the task's placement.", length=3)
    target: list[float] | None = opt(None, "Point looked at, metres; needed where eye is given.", length=3)


@dataclass
class RewardConfig:
    """The per-step reward."""

    mode: str = opt(
        "dense_difference",
        "Increase of the task's normalised dense reward, the dense reward itself, or the success bonus alone.",
        choices=("dense_difference", "dense", "sparse"),
    )
    scale: float = opt(1.0, "Factor on the dense part.", ge=0.0)
    success_bonus: float = opt(1.0, "Added once, at the step that first succeeds.", ge=0.0)


@dataclass
class EnvConfig:
    """The task and how it is stepped."""

    simulator: str = opt(
        "maniskill", "Which simulator runs the task.", choices=("maniskill", "toy", "gymnasium", "lerobot")
    )
    id: str = opt("PushCube-v1", "The simulator's environment id.")
    num_envs: int = opt(16, "E, environments stepped side by side during rollouts.", ge=1)
    max_episode_len: int = opt(50, "Time limit of an episode, environment steps.", ge=1)
    n_steps_rollout: int = opt(100, "Environment steps per environment and iteration.", ge=1)
    control_mode: str = opt("pd_ee_delta_pos", "The controller; demonstrations are recorded in this mode.")
    cameras: list[CameraConfig] = field(
        default_factory=lambda: [CameraConfig()], metadata={"doc": "Rendered cameras; [] for state only."}
    )
    state_terms: list[str] = opt(["tcp_pos"], "What the policy's state vector is made of, in order.")
    instruction: str | None = opt(None, "Language instruction; null takes the task's default.")
    robot: str | None = opt(None, "Robot uid; null keeps the task's default.")
    shader: str = opt("minimal", "Renderer preset.")
    make_kwargs: dict[str, Any] = opt({}, "Further keyword arguments of the simulator's constructor.")
    options: dict[str, Any] = opt({}, "Settings that the simulator itself declares (docs/adding_an_env.md).")
    reset_at_iteration: bool = opt(
        True, "Start every iteration with new episodes; with false, episodes run on and resuming is not exact."
    )
    episode_ends_on_success: bool = opt(True, "Success terminates the episode.")
    reward: RewardConfig = field(default_factory=RewardConfig, metadata={"doc": "The per-step reward."})


@dataclass
class SimConfig:
    """Where and how the simulator runs."""

    device: str = opt("cpu", "Device of physics and rendering: cpu, or cuda:N.")
    backend: str = opt(
        "auto", "Physics backend; auto: gpu where sim.device is CUDA, else cpu.", choices=("auto", "cpu", "gpu")
    )
    render_backend: str | None = opt(None, "The simulator's name of the rendering device; null for its default.")
    num_workers: int | None = opt(
        None, "Worker processes for CPU physics; null: one per core, 0: in this process.", ge=0
    )
    overlap: bool | None = opt(
        None,
        "Simulate one group of environments while the policy decides for the other; null: where they run on "
        "different devices, or in two workers and more.",
    )
    num_groups: int | None = opt(
        None, "Groups that the rollout's environments are decided in; null: 2 with overlap, else 1.", ge=1
    )
    step_timeout_s: float = opt(120.0, "A worker silent for longer is restarted, seconds.", gt=0.0)
    max_restarts: int = opt(3, "Restarts allowed per worker before the run stops.", ge=0)


@dataclass
class ModelOverridesConfig:
    """Chunk and denoise settings of one model; where not null they win over the settings of the same name."""

    act_steps: int | None = opt(None, "Wins over act_steps.", ge=1)
    n_action_steps: int | None = opt(None, "Wins over n_action_steps.", ge=1)
    num_steps: int | None = opt(None, "Wins over num_steps, and over num_steps_eval in evaluate.py.", ge=1)


@dataclass
class ModelConfig:
    """The policy network."""

    kind: str = opt(
        "small",
        "small, small_pi05: the architectures at test size; pi0, pi05: real size.",
        choices=("small", "small_pi05", "pi0", "pi05"),
    )
    path: str | None = opt(
        None, "Checkpoint directory (pretrained_model/); train_sft takes its weights alone; null: random weights."
    )
    device: str = opt("cpu", "Device of the policy: cpu, or cuda:N.")
    dtype: str = opt("float32", "Weights' type.", choices=("float32", "bfloat16"))
    matmul: str = opt(
        "highest",
        "float32 products: highest: in float32; high: in TF32 on a GPU, several times faster there (SigLIP stays "
        "float32 also under bfloat16 weights).",
        choices=("highest", "high"),
    )
    train_vlm: bool = opt(False, "Also train the vision-language prefix during PPO; false freezes it.")
    tokenizer_path: str | None = opt(None, "Tokenizer directory or hub name; null: the small one, or the checkpoint's.")
    gradient_checkpointing: bool = opt(False, "Recompute activations in the backward pass.")
    compile: bool = opt(False, "torch.compile the denoise step; the first calls take a minute or more.")
    small: dict[str, Any] = opt({}, "Sizes of the small model; see rlft.policy.pi0.sizes.SmallSize.")
    model_overrides: ModelOverridesConfig = field(
        default_factory=ModelOverridesConfig,
        metadata={"doc": "Chunk and denoise settings that win over the top-level ones."},
    )


@dataclass
class CollectConfig:
    """Demonstrations by motion planning."""

    num_episodes: int = opt(200, "Successful episodes wanted.", ge=1)
    num_procs: int | None = opt(None, "Worker processes; null: one per core.", ge=1)
    max_attempts: int | None = opt(None, "Seeds tried at most; null: four per episode wanted.", ge=1)
    keep_failures: bool = opt(False, "Also keep episodes that did not succeed.")
    success_hold_steps: int = opt(2, "Steps recorded after the first success.", ge=0)
    save_video: bool = opt(False, "Store pictures as video (AV1), not PNG; demos.mp4 beside the dataset is a sample.")
    action_noise: float = opt(0.0, "Std of noise added to executed, not recorded, actions (controller units).", ge=0.0)
    max_steps: int = opt(400, "A demonstration that would take more steps counts as a failure.", ge=1, le=400)
    fps: int | None = opt(None, "Frames per second written; null: the control frequency.", ge=1)


@dataclass
class DatasetConfig:
    """Where demonstrations are, and what is computed of them."""

    path: str | None = opt(None, "LeRobotDataset v3 directory; null: dataset/ in the run directory.")
    repo_id: str = opt("local/demos", "Name stored in the dataset; letters, digits, . _ - and one slash.")
    stats_method: str | None = opt(
        None,
        "Statistics that train_sft normalises with: mean and std, or the 1 % and 99 % quantiles; null: what the "
        "pretrained weights of model.kind expect (quantiles for pi05). A checkpoint keeps its own.",
        choices=("mean_std", "quantiles"),
    )


@dataclass
class AssetsConfig:
    """Simulator assets that do not come with a package; scripts/download_assets.py fetches them."""

    root: str | None = opt(None, "Their directory; null: RLFT_ASSETS, else ~/.cache/rlft/assets.")


@dataclass
class OutputConfig:
    """Where results go."""

    dir: str | None = opt(None, "Run directory; null: outputs/<name>.")


@dataclass
class WandbConfig:
    """Weights & Biases; offline where no key is set. Use wandb=null for none."""

    project: str = opt("rlft", "Project name.")
    entity: str | None = opt(None, "Team or user.")
    run: str | None = opt(None, "Run name; null: the run's name.")
    offline_mode: bool = opt(False, "Never talk to the network.")


@dataclass
class RunConfig:
    """The root of every configuration file and command line."""

    name: str = opt("${env.id}_seed${seed}", "Run name.")
    seed: int = opt(0, "Seed of everything that is drawn.", ge=0)
    act_steps: int = opt(5, "A, environment steps executed per chunk decision.", ge=1)
    n_action_steps: int = opt(5, "H, steps predicted per chunk decision.", ge=1)
    num_steps: int = opt(4, "K, denoise steps in rollouts and updates.", ge=1)
    num_steps_eval: int = opt(4, "Denoise steps in evaluation (deterministic ODE).", ge=1)
    resume: str | None = opt(
        None,
        "auto: continue from the run's newest whole checkpoint; a checkpoint directory: from that one; null: anew.",
    )
    dataset_stats: str | None = opt(
        None, "Normalisation statistics file; null: those inside the checkpoint or dataset."
    )
    allow_stats_mismatch: bool = opt(False, "Accept statistics of another dataset or environment.")
    env: EnvConfig = field(default_factory=EnvConfig, metadata={"doc": "The task."})
    sim: SimConfig = field(default_factory=SimConfig, metadata={"doc": "The simulator's machine."})
    model: ModelConfig = field(default_factory=ModelConfig, metadata={"doc": "The policy."})
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig, metadata={"doc": "Stochastic denoising."})
    critic: CriticConfig = field(default_factory=CriticConfig, metadata={"doc": "The value head."})
    buffer: BufferConfig = field(default_factory=BufferConfig, metadata={"doc": "The rollout buffer."})
    train: TrainConfig = field(default_factory=TrainConfig, metadata={"doc": "PPO."})
    guard: GuardConfig = field(default_factory=GuardConfig, metadata={"doc": "Guards of PPO."})
    sft: SftConfig = field(default_factory=SftConfig, metadata={"doc": "Supervised warm-up."})
    collect: CollectConfig = field(default_factory=CollectConfig, metadata={"doc": "Demonstrations."})
    eval: EvalConfig = field(default_factory=EvalConfig, metadata={"doc": "Evaluation."})
    dataset: DatasetConfig = field(default_factory=DatasetConfig, metadata={"doc": "Demonstrations on disk."})
    assets: AssetsConfig = field(default_factory=AssetsConfig, metadata={"doc": "Downloaded simulator assets."})
    output: OutputConfig = field(default_factory=OutputConfig, metadata={"doc": "Where results go."})
    wandb: WandbConfig | None = field(default=None, metadata={"doc": "Weights & Biases, or null."})
    domain_randomization: DomainRandomizationConfig | None = field(
        default=None, metadata={"doc": "Picture randomisation, or null."}
    )
