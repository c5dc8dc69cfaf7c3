"""One Gymnasium environment. Imported lazily; importing it imports gymnasium."""

from typing import Any

import gymnasium
import numpy as np

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.gym.options import RENDER, Options
from rlft_envs.gym.reading import at_size, look_up, read_image, read_vector
from rlft_envs.single import ObservationRow, Outcome, SingleEnv, spec_of

LARGEST = 1e6  # a bound beyond it is none
ON_DEMAND = "observe_now"


def action_bounds(space: gymnasium.Space, options: Options, env_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the actions, float32 ``[d]``; the task file's win over the space's.

    EnvSetupError: the space is no vector of numbers, or is unbounded and the task file gives no bounds.
    """
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1 or space.dtype.kind != "f":
        raise EnvSetupError(f"env.id = {env_id!r} takes actions in {space}; a flow policy needs a Box of floats [d]")
    sides = []
    for name, declared in (("action_low", space.low), ("action_high", space.high)):
        given = getattr(options, name)
        if given and len(given) not in (1, len(declared)):
            raise EnvSetupError(f"env.options.{name} has {len(given)} numbers; give {len(declared)}, or one for all")
        side = np.broadcast_to(np.array(given or declared, dtype=np.float32), declared.shape)
        unbounded = np.flatnonzero(~(np.abs(side) <= LARGEST)).tolist()
        if unbounded:
            wrong = f"the action space of {env_id} has no bound in dimensions {unbounded}"
            raise EnvSetupError(f"env.options.{name} must be given: {wrong}")
        sides.append(side)
    if not (sides[0] < sides[1]).all():
        raise EnvSetupError(f"env.options.action_low = {sides[0].tolist()} is not below {sides[1].tolist()}")
    return sides[0], sides[1]


class GymnasiumEnv(SingleEnv):
    """A Gymnasium environment under rlft's rules: time limit, reward and the end of an episode are decided by these.

    The dense reward is the environment's own, of the step just taken; 0 at the start. Where the environment truncates
    by itself, the episode is truncated there. Images are rendered in :meth:`observe` where the environment lets it:
    for the key ``render``, and for one with a method ``observe_now()``, which returns the observation of the present.

    It comes without a ``TimeLimit``; every camera has its key in the options; the instruction is the task's default.
    """

    def __init__(
        self, settings: EnvSettings, env: gymnasium.Env, options: Options, control_hz: float | None, instruction: str
    ) -> None:
        super().__init__(settings)
        self.env, self._options, self._default_instruction = env, options, instruction
        self._observe_now = env.get_wrapper_attr(ON_DEMAND) if env.has_wrapper_attr(ON_DEMAND) else None
        self._success_above = options.success_above()
        self._low, self._high = action_bounds(env.action_space, options, settings.env_id)
        control_hz = options.control_hz or control_hz
        if not control_hz:
            raise EnvSetupError(f"env.options.control_hz must be given: {settings.env_id} does not say its rate")
        self._tree: dict[str, Any] = {}
        self._reward, self._over = 0.0, False
        row = self._probe()
        privileged_dim = 0 if row.privileged is None else len(row.privileged)
        self.spec = spec_of(settings, (self._low, self._high), len(row.state), control_hz, privileged_dim)

    @property
    def instruction(self) -> str:
        """The settings' instruction, else the environment's ``task_description``, else the task's default."""
        own = self.env.get_wrapper_attr("task_description") if self.env.has_wrapper_attr("task_description") else ""
        text = self.settings.instruction or own or self._default_instruction
        if not text:
            raise EnvSetupError(f"env.instruction must be given: {self.settings.env_id} does not say what its task is")
        return str(text)

    def observe(self) -> ObservationRow:
        """Render the cameras and read the state."""
        self._look()
        images = {
            camera.name: at_size(self._image(self._options.images[camera.name], f"camera {camera.name!r}"), camera)
            for camera in self.settings.cameras
        }
        state = read_vector(self._tree, self.settings.state_terms, "env.state_terms")
        if not self.settings.privileged:
            return ObservationRow(images, state)
        privileged = read_vector(self._tree, self._options.privileged, "env.options.privileged")
        return ObservationRow(images, state, privileged)

    def human_view(self) -> np.ndarray:
        """The image that ``human_view`` names, uint8 ``[height, width, 3]``."""
        key = self._options.human_view or next(iter(self._options.images.values()), None)
        if key is None:
            wrong = "env.options.human_view must be given to make videos without a camera"
            raise EnvSetupError(f"{wrong}: a key, or render")
        if key != RENDER:
            self._look()
        return self._image(key, "env.options.human_view")

    def close(self) -> None:
        """Close the environment; may be called twice."""
        self.env.close()

    def _start_episode(self, seed: int, configuration_id: int | None) -> None:
        observation, info = self.env.reset(seed=seed)
        self._seen(observation, info)
        self._reward, self._over = 0.0, False

    def _advance(self, action: np.ndarray) -> Outcome:
        if self._over:
            wrong = f"{self.settings.env_id} has terminated and must not be stepped on: collect.success_hold_steps"
            raise RuntimeError(f"{wrong} must be 0, or env.options.runs_past_end true where the environment allows it")
        action = np.clip(action, self._low, self._high).astype(self.env.action_space.dtype)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._seen(observation, info)
        self._reward = np.asarray(reward, dtype=np.float64).item()
        self._over = bool(terminated or truncated) and not self._options.runs_past_end
        success = self._solved(bool(terminated), info)
        return Outcome(success, fail=bool(terminated) and not success, cut=bool(truncated))

    def _dense_reward(self) -> float:
        return self._reward

    def _solved(self, terminated: bool, info: dict[str, Any]) -> bool:
        if self._success_above is not None:
            return self._reward >= self._success_above
        if self._options.success == "terminated":
            return terminated
        return bool(look_up(info, self._options.success, "env.options.success"))

    def _seen(self, observation: Any, info: dict[str, Any]) -> None:
        mapping = isinstance(observation, dict)
        self._tree = {"info": info, **(observation if mapping else {"observation": observation})}

    def _look(self) -> None:
        if self._observe_now is not None:
            self._seen(self._observe_now(), self._tree["info"])

    def _image(self, key: str, whose: str) -> np.ndarray:
        value = self.env.render() if key == RENDER else look_up(self._tree, key, "env.options.images")
        return read_image(value, f"{whose}, key {key!r}")

    def _probe(self) -> ObservationRow:
        """Run the first step of one episode twice: shapes, keys, and whether the seed names the episode."""
        runs = []
        for _ in range(2):
            self._start_episode(0, None)
            start = self.observe().state
            self._advance((self._low + self._high) / 2)
            runs.append(np.concatenate([start, self.observe().state]))
        if not np.array_equal(runs[0], runs[1], equal_nan=True):
            wrong = f"env.id = {self.settings.env_id!r}: reset(seed=0) gave two different episodes"
            remedy = "Draw from self.np_random alone, which reset(seed=...) seeds"
            raise EnvSetupError(f"{wrong}; a seed has to name its episode. {remedy}")
        self._start_episode(0, None)
        _ = self.instruction
        return self.observe()
