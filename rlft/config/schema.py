"""The schema of every setting: its type, default, allowed range and meaning, in one place.

The sections about learning are in :mod:`rlft.config.learning`. ``docs/configuration.md`` is generated from both,
and :mod:`rlft.config.load` validates against them. docs/concepts.md maps the names of keys to other projects' words.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic.dataclasses import dataclass

from rlft.config.base import MUST_BE_GIVEN, SECTION, Bool, Float, Int, PluginName, opt
from rlft.config.learning import BufferConfig, CriticConfig, ExplorationConfig, GuardConfig, SftConfig, TrainConfig

IN_DISTRIBUTION = "in_distribution"
Group = Literal["in_distribution", "vision", "semantics", "execution"]
GROUPS: tuple[str, ...] = get_args(Group)
FOLDER = "A folder of images; a relative one lies in the directory of assets."
EFFECTS = ("brightness", "contrast", "saturation", "hue", "noise", "blur", "crop", "shift", "texture", "overlay")


@dataclass(config=SECTION, frozen=True)
class CameraConfig:
    """One rendered camera."""

    name: str = opt("base_camera", "The simulator's camera name; also the policy's image key.")
    height: Int | None = opt(None, "Rows, pixels; null: the model's resolution.", ge=8, le=4096)
    width: Int | None = opt(None, "Columns, pixels; null: the model's resolution.", ge=8, le=4096)
    aspect: Float = opt(1.0, "Width over height where the size is the model's (null); padded to a square.", gt=0.0)
    fov: Float | None = opt(None, "Vertical field of view, radians; null keeps the task's.", gt=0.0, lt=3.1)
    eye: list[Float] | None = opt(None, "Camera position, metres; null: the task's.", min_length=3, max_length=3)
    target: list[Float] | None = opt(None, "Point it looks at, metres; needed with eye.", min_length=3, max_length=3)


@dataclass(config=SECTION, frozen=True)
class RewardConfig:
    """The per-step reward."""

    mode: Literal["dense_difference", "dense", "sparse"] = opt(
        "dense_difference",
        "Increase of the task's normalised dense reward, the dense reward itself, or the success bonus alone.",
    )
    scale: Float = opt(1.0, "Factor on the dense part.", ge=0.0)
    success_bonus: Float = opt(1.0, "Added once, at the step that first succeeds.", ge=0.0)


@dataclass(config=SECTION, frozen=True)
class EnvConfig:
    """The task and how it is stepped."""

    simulator: Annotated[str, PluginName("simulators")] = opt(MUST_BE_GIVEN, "Which simulator runs the task.")
    id: str = opt(MUST_BE_GIVEN, "The simulator's environment id.")
    num_envs: Int = opt(16, "E, environments stepped side by side during rollouts.", ge=1)
    max_episode_len: Int = opt(50, "Time limit of an episode, environment steps.", ge=1)
    n_steps_rollout: Int = opt(100, "Environment steps per environment and iteration.", ge=1)
    control_mode: str = opt("pd_ee_delta_pos", "The controller; demonstrations are recorded in this mode.")
    cameras: list[CameraConfig] = opt([CameraConfig()], "Rendered cameras; [] for state only.")
    state_terms: list[str] = opt(["tcp_pos"], "What the policy's state vector is made of, in order.")
    instruction: str | None = opt(None, "Language instruction; null takes the task's default.")
    robot: str | None = opt(None, "Robot uid; null keeps the task's default.")
    shader: str = opt("minimal", "Renderer preset.")
    make_kwargs: dict[str, Any] = opt({}, "Further keyword arguments of the simulator's constructor.")
    options: dict[str, Any] = opt({}, "Settings that the simulator itself declares (docs/adding_an_env.md).")
    reset_at_iteration: Bool = opt(True, "Start every iteration with new episodes; with false, resuming is not exact.")
    episode_ends_on_success: Bool = opt(True, "Success terminates the episode.")
    reward: RewardConfig = opt(RewardConfig())


@dataclass(config=SECTION, frozen=True)
class SimConfig:
    """Where and how the simulator runs."""

    device: str = opt("cpu", "Device of physics and rendering: cpu, or cuda:N.")
    backend: Literal["auto", "cpu", "gpu"] = opt("auto", "Of physics; auto: gpu where sim.device is CUDA, else cpu.")
    render_backend: str | None = opt(None, "The simulator's name of the rendering device; null for its default.")
    num_workers: Int | None = opt(None, "Processes of CPU physics; null: one per core, 0: in this process.", ge=0)
    overlap: Bool | None = opt(None, "Simulate one group while the policy decides for another; null: where that helps.")
    num_groups: Int | None = opt(None, "Groups of environments decided in turn; null: 2 with overlap, else 1.", ge=1)
    step_timeout_s: Float = opt(120.0, "A worker silent for longer is restarted, seconds.", gt=0.0)
    max_restarts: Int = opt(3, "Restarts allowed per worker before the run stops.", ge=0)


@dataclass(config=SECTION, frozen=True)
class ModelOverridesConfig:
    """Chunk and denoise settings of one model; where not null they win over the settings of the same name."""

    act_steps: Int | None = opt(None, "Wins over act_steps.", ge=1)
    n_action_steps: Int | None = opt(None, "Wins over n_action_steps.", ge=1)
    num_steps: Int | None = opt(None, "Wins over num_steps, and over num_steps_eval in evaluate.", ge=1)


@dataclass(config=SECTION, frozen=True)
class ModelConfig:
    """The policy network."""

    kind: Annotated[str, PluginName("policies")] = opt(
        "small", "Which policy, a file of configs/policy; package.module:FAMILY for one of your own."
    )
    path: str | None = opt(None, "Checkpoint (pretrained_model/), of which train_sft takes the weights; null: random.")
    device: str = opt("cpu", "Device of the policy: cpu, or cuda:N.")
    dtype: Literal["float32", "bfloat16"] = opt("float32", "Weights' type.")
    matmul: Literal["highest", "high"] = opt("highest", "float32 products; high: TF32 on a GPU, several times faster.")
    train_vlm: Bool = opt(False, "Also train the vision-language prefix during PPO; false freezes it.")
    tokenizer_path: str | None = opt(None, "Tokenizer directory or hub name; null: the small one, or the checkpoint's.")
    gradient_checkpointing: Bool = opt(False, "Recompute activations in the backward pass.")
    compile: Bool = opt(False, "torch.compile the denoise step; the first calls take a minute or more.")
    small: dict[str, Any] = opt({}, "Sizes of the small kinds; an unknown name is answered with those that there are.")
    options: dict[str, Any] = opt({}, "Settings that a policy of another package declares.")
    model_overrides: ModelOverridesConfig = opt(ModelOverridesConfig())


@dataclass(config=SECTION, frozen=True)
class CollectConfig:
    """Demonstrations by motion planning."""

    num_episodes: Int = opt(200, "Successful episodes wanted.", ge=1)
    num_procs: Int | None = opt(None, "Worker processes; null: one per core.", ge=1)
    max_attempts: Int | None = opt(None, "Seeds tried at most; null: four per episode wanted.", ge=1)
    keep_failures: Bool = opt(False, "Also keep episodes that did not succeed.")
    success_hold_steps: Int = opt(2, "Steps recorded after the first success.", ge=0)
    save_video: Bool = opt(False, "Store images as video (AV1), not PNG; demos.mp4 beside the dataset is a sample.")
    action_noise: Float = opt(0.0, "Std of noise added to executed, not recorded, actions (controller units).", ge=0.0)
    max_steps: Int = opt(400, "A demonstration that would take more steps counts as a failure.", ge=1, le=400)
    fps: Int | None = opt(None, "Frames per second written; null: the control frequency.", ge=1)


@dataclass(config=SECTION, frozen=True)
class DatasetConfig:
    """Where demonstrations are, and what is computed of them."""

    path: str | None = opt(None, "LeRobotDataset v3 directory; null: dataset/ in the run directory.")
    repo_id: str = opt("local/demos", "Name stored in the dataset; letters, digits, . _ - and one slash.")
    stats_method: Literal["mean_std", "quantiles"] | None = opt(
        None, "Normalisation in train_sft, by the 1 % and 99 % quantiles or not; null: what model.kind expects."
    )


@dataclass(config=SECTION, frozen=True)
class AssetsConfig:
    """Simulator assets that do not come with a package; `rlft-assets` fetches them."""

    root: str | None = opt(None, "Their directory; null: RLFT_ASSETS, else ~/.cache/rlft/assets.")


@dataclass(config=SECTION, frozen=True)
class OutputConfig:
    """Where results go."""

    dir: str | None = opt(None, "Run directory; null: outputs/<name>.")


@dataclass(config=SECTION, frozen=True)
class WandbConfig:
    """Weights & Biases; offline where no key is set. Use wandb=null for none."""

    project: str = opt("rlft", "Project name.")
    entity: str | None = opt(None, "Team or user.")
    run: str | None = opt(None, "Run name; null: the run's name.")
    offline_mode: Bool = opt(False, "Never talk to the network.")


@dataclass(config=SECTION, frozen=True)
class SuiteMemberConfig:
    """One evaluation of a suite; what it does not say is as in the other settings."""

    name: str = opt("", "Names its row and its files.")
    group: Group = opt(IN_DISTRIBUTION, "What is unlike training; exactly one member is in distribution.")
    id: str | None = opt(None, "The simulator's environment id; null: env.id.")
    make_kwargs: dict[str, Any] = opt({}, "Constructor arguments on top of env.make_kwargs.")
    instruction: str | None = opt(None, "Language instruction; null: env.instruction.")


@dataclass(config=SECTION, frozen=True)
class SuiteConfig:
    """A list of evaluations that make one table; the files of the group suite hold them."""

    name: str = opt("suite", "Stands above the table.")
    members: list[SuiteMemberConfig] = opt([], "The evaluations, in the order of the table.")


@dataclass(config=SECTION, frozen=True)
class EvalConfig:
    """Closed-loop evaluation."""

    num_envs: Int = opt(16, "Environments side by side, at most; they do not change the result.", ge=1)
    episodes: Int = opt(128, "Episodes in all; unused with eval.select=all.", ge=1)
    seed: Int = opt(1_000_000, "Names every episode's seed and noise; never used by collection or rollouts.", ge=0)
    select: Literal["seeds", "all", "stratified"] = opt(
        "seeds", "Which configurations: drawn by seed, all numbered ones, or different ones, balanced by their labels."
    )
    episode_end: Literal["success", "time_limit"] | None = opt(
        None, "What ends an episode: the first success, or time alone; null: as env.episode_ends_on_success says."
    )
    label: str = opt("policy", "Names the result: eval_<label>.json and its videos.")
    num_videos: Int = opt(4, "Episodes run once more for a video, failures first.", ge=0)
    suite: SuiteConfig | None = opt(None, "Several evaluations in one table (group suite), or null.")


@dataclass(config=SECTION, frozen=True)
class TextureConfig:
    """A texture that is blended over the whole image."""

    folder: str = opt(..., FOLDER)
    files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_length=1)
    ratio: Float = opt(0.3, "Largest share of the texture in the blend; drawn from 0 to this.", gt=0.0, le=1.0)


@dataclass(config=SECTION, frozen=True)
class OverlayConfig:
    """Another background, where images are composites of a known background image and a rendered foreground."""

    folder: str = opt(..., f"{FOLDER} The backgrounds to swap in.")
    files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_length=1)
    known_folder: str | None = opt(None, "The backgrounds that the environment shows; null: the same folder.")
    known_files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_length=1)
    tolerance: Int = opt(16, "Difference of a background pixel from the known one, of 255, at most.", ge=0, le=128)
    min_match: Float = opt(0.3, "An image with a smaller share of background stays as it is.", gt=0.0, le=1.0)


@dataclass(config=SECTION, frozen=True)
class DomainRandomizationConfig:
    """Images are changed before the policy sees them, in rollouts and in SFT, never in evaluations."""

    rollout: Bool = opt(True, "Change the images of rollouts.")
    sft: Bool = opt(True, "Change the images of SFT, anew for every row of every step.")
    cameras: list[str] | None = opt(None, "Whose images; null: all cameras.", min_length=1)
    per: Literal["episode", "decision"] = opt("episode", "How often rollouts draw.")
    probability: Float = opt(1.0, "Share of the draws that change an image at all.", gt=0.0, le=1.0)
    brightness: Float = opt(0.0, "Largest value added or taken away, share of the full range.", ge=0.0, le=1.0)
    contrast: Float = opt(0.0, "Largest change of the contrast's factor from 1.", ge=0.0, le=1.0)
    saturation: Float = opt(0.0, "Largest change of the saturation's factor from 1.", ge=0.0, le=1.0)
    hue: Float = opt(0.0, "Largest turn of the hue, degrees.", ge=0.0, le=180.0)
    noise: Float = opt(0.0, "Largest std of Gaussian noise, share of the full range.", ge=0.0, le=1.0)
    blur: Float = opt(0.0, "Largest std of the Gaussian blur, pixels of the camera.", ge=0.0, le=10.0)
    crop: Float = opt(0.0, "Largest share of either side that is cut off; the rest is resized back.", ge=0.0, le=0.5)
    shift: Float = opt(0.0, "Largest shift, share of either side; the border is repeated.", ge=0.0, le=0.5)
    texture: TextureConfig | None = opt(None, "A texture that is blended over the whole image.")
    overlay: OverlayConfig | None = opt(None, "Another background behind a rendered foreground.")


def enabled_effects(cfg: DomainRandomizationConfig) -> list[str]:
    """The names of the effects that are on."""
    return [name for name in EFFECTS if vars(cfg)[name]]  # off: 0 or null


@dataclass(config=SECTION, frozen=True)
class RunConfig:
    """The root of every configuration file and command line."""

    name: str = opt("${plain:${env.id}}_seed${seed}", "Run name; plain: signs that no file name has become _.")
    seed: Int = opt(0, "Seed of everything that is drawn.", ge=0)
    act_steps: Int = opt(5, "A, environment steps executed per chunk decision.", ge=1)
    n_action_steps: Int = opt(5, "H, steps predicted per chunk decision.", ge=1)
    num_steps: Int = opt(4, "K, denoise steps in rollouts and updates.", ge=1)
    num_steps_eval: Int = opt(4, "Denoise steps in evaluation (deterministic ODE).", ge=1)
    resume: str | None = opt(None, "A checkpoint to continue from; auto: the run's newest whole one; null: anew.")
    dataset_stats: str | None = opt(None, "Normalisation statistics; null: those of the checkpoint or dataset.")
    allow_stats_mismatch: Bool = opt(False, "Accept statistics of another dataset or environment.")
    env: EnvConfig = opt(EnvConfig())
    sim: SimConfig = opt(SimConfig())
    model: ModelConfig = opt(ModelConfig())
    exploration: ExplorationConfig = opt(ExplorationConfig())
    critic: CriticConfig = opt(CriticConfig())
    buffer: BufferConfig = opt(BufferConfig())
    train: TrainConfig = opt(TrainConfig())
    guard: GuardConfig = opt(GuardConfig())
    sft: SftConfig = opt(SftConfig())
    collect: CollectConfig = opt(CollectConfig())
    eval: EvalConfig = opt(EvalConfig())
    dataset: DatasetConfig = opt(DatasetConfig())
    assets: AssetsConfig = opt(AssetsConfig())
    output: OutputConfig = opt(OutputConfig())
    wandb: WandbConfig | None = opt(None, "Weights & Biases, or null.")
    domain_randomization: DomainRandomizationConfig | None = opt(None, "Image randomisation, or null.")
