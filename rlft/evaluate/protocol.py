"""What has to be equal for two evaluations to be comparable: a frozen object, and its hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlft.files import canonical_json, content_hash
from rlft.types import CameraSettings, EnvSettings, EnvSpec

VERSION = 1  # raised whenever the same protocol would give other numbers
SUCCESS, TIME_LIMIT = "success", "time_limit"  # what ends an episode
SHORT = 12  # hexadecimal digits of a hash that are shown


@dataclass(frozen=True)
class Protocol:
    """Everything that two comparable evaluations share.

    How the work is spread (environments, workers, devices), what is kept (videos, label) and the reward's scale are no
    part of it: they change no episode's outcome. A test holds every field of the settings to one side or the other.
    """

    simulator: str  # as in :class:`rlft.types.EnvSettings`, and so are the next eleven
    sim_backend: str  # `cpu` or `gpu` physics: the two do not give the same numbers
    env_id: str  # the task
    make_kwargs: str  # constructor arguments (`obj_set` among them) as canonical JSON, so that they cannot change
    options: str  # the simulator's own settings, as canonical JSON
    robot: str | None  # robot uid, or None
    shader: str  # renderer preset
    control_mode: str  # the controller
    cameras: tuple[CameraSettings, ...]  # what the policy sees
    state_terms: tuple[str, ...]  # what it is told of the robot
    instruction: str | None  # the text given instead of the task's own, or None
    max_episode_steps: int  # the time limit, environment steps
    # `success`: the first success ends an episode; `time_limit`: every episode runs the full limit
    episode_end: str
    select: str  # `seeds`, `all` or `stratified`; see :func:`rlft.evaluate.episodes.choose_ids`
    episodes: int  # how many
    seed: int  # names every episode's seed and noise, and the sample
    # the numbered configuration of each episode, in order; None where the seed decides
    episode_ids: tuple[int, ...] | None
    num_steps: int  # denoise steps of the deterministic ODE
    act_steps: int  # A
    version: int = VERSION  # of the rules themselves

    def __post_init__(self) -> None:
        if self.episode_ids is not None and len(self.episode_ids) != self.episodes:
            raise ValueError(f"episodes={self.episodes}, but {len(self.episode_ids)} episode_ids; one each is needed")

    @classmethod
    def of(
        cls,
        env: EnvSettings,
        *,
        select: str,
        episodes: int,
        seed: int,
        episode_ids: tuple[int, ...] | None,
        num_steps: int,
        act_steps: int,
    ) -> Protocol:
        """The protocol of an evaluation in environments that are built from ``env``."""
        return cls(
            simulator=env.simulator,
            sim_backend=env.sim_backend,
            env_id=env.env_id,
            make_kwargs=canonical_json(env.make_kwargs),
            options=canonical_json(env.options),
            robot=env.robot,
            shader=env.shader,
            control_mode=env.control_mode,
            cameras=env.cameras,
            state_terms=env.state_terms,
            instruction=env.instruction,
            max_episode_steps=env.max_episode_steps,
            episode_end=SUCCESS if env.episode_ends_on_success else TIME_LIMIT,
            select=select,
            episodes=episodes,
            seed=seed,
            episode_ids=episode_ids,
            num_steps=num_steps,
            act_steps=act_steps,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, short enough to print: the episode ids stand in it by their hash."""
        plain = asdict(self)
        if plain["options"] == "{}":
            del plain["options"]  # so that hashes from before there were options stay
        plain["episode_ids"] = None if self.episode_ids is None else content_hash(self.episode_ids)
        return plain

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of :meth:`to_dict`, 64 hexadecimal digits."""
        return content_hash(self.to_dict())

    def check(self, spec: EnvSpec) -> None:
        """Refuse environments that are not the protocol's.

        Raises:
            ValueError: names what differs.
        """
        promised: Mapping[str, Any] = {
            "env_id": self.env_id,
            "control_mode": self.control_mode,
            "cameras": self.cameras,
            "max_episode_steps": self.max_episode_steps,
        }
        built = {name: getattr(spec, name) for name in promised}
        wrong = [
            f"{name}: {built[name]!r}, not {promised[name]!r}" for name in promised if built[name] != promised[name]
        ]
        if wrong:
            raise ValueError(f"the environments are not those of the protocol: {'; '.join(wrong)}")
        beyond = [i for i in self.episode_ids or () if not 0 <= i < spec.num_episode_ids]
        if beyond:
            raise ValueError(
                f"episode ids {beyond[:5]} do not exist: {self.env_id} has {spec.num_episode_ids} configurations"
            )
