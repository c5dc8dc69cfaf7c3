"""A task of a few numpy lines behind the same contract: move a disc to a goal that only the image shows.

It makes the whole pipeline run in seconds, in tests and on a laptop. The world is the square [-1, 1]^2, x to the right
and y upwards. With ``make_kwargs: {numbered: true}`` it has numbered configurations: every start with every goal.
"""

import numpy as np

from rlft.types import CameraSettings, ConfigurationSpace, EnvSettings
from rlft_envs.errors import EnvSetupError, check_known
from rlft_envs.simulator import Simulator
from rlft_envs.single import ObservationRow, Outcome, SingleEnv, spec_of

ENV_IDS = ("ToyReach-v0",)
CONTROL_MODES = ("pd_ee_delta_pos",)
STATE_TERMS = ("tcp_pos", "goal_pos")

MAX_STEP = 0.12  # displacement of a unit action
CONTROL_HZ = 20.0
GOAL_RADIUS = 0.15
DISC_RADIUS = 0.12
INSTRUCTION = "move the disc to the goal"
HUMAN_VIEW = CameraSettings("human", 96, 96)

# The numbered configurations; the seed moves both by up to JITTER.
STARTS = {f"{x:+.2f} {y:+.2f}": (x, y) for y in (-0.35, 0.35) for x in (-0.35, 0.35)}
GOALS = {f"{x:+.1f} {y:+.1f}": (x, y) for y in (-0.7, 0.0, 0.7) for x in (-0.7, 0.0, 0.7)}
JITTER = 0.05


def configurations(settings: EnvSettings) -> ConfigurationSpace | None:
    """The numbered configurations; None unless ``numbered`` is set."""
    if not {"numbered": False, **settings.make_kwargs}["numbered"]:
        return None
    pairs = [{"start": start, "goal": goal} for start in STARTS for goal in GOALS]
    return ConfigurationSpace({"start": len(STARTS), "goal": len(GOALS)}, pairs.__getitem__, ("start", "goal"))


class ToyEnv(SingleEnv):
    """An action is a displacement in units of ``MAX_STEP``, clipped to [-1, 1] per axis; privileged: disc, goal (4)."""

    def __init__(self, settings: EnvSettings) -> None:
        super().__init__(settings)
        self.check(settings)
        numbered = configurations(settings)
        self._pos, self._goal = np.zeros((2, 2))
        sizes = 4 * settings.privileged, numbered.count if numbered else 0
        self.spec = spec_of(settings, ((-1, -1), (1, 1)), 2 * len(settings.state_terms), CONTROL_HZ, *sizes)

    @property
    def instruction(self) -> str:
        """The language instruction."""
        return self.settings.instruction or INSTRUCTION

    def observe(self) -> ObservationRow:
        """Draw the cameras and read the state."""
        values = {"tcp_pos": self._pos, "goal_pos": self._goal}
        state = np.concatenate([values[term] for term in self.settings.state_terms])
        privileged = np.concatenate([self._pos, self._goal]).astype(np.float32) if self.settings.privileged else None
        images = {camera.name: self._draw(camera) for camera in self.settings.cameras}
        return ObservationRow(images, state.astype(np.float32), privileged)

    def human_view(self) -> np.ndarray:
        """An image for people, uint8 ``[96, 96, 3]``."""
        return self._draw(HUMAN_VIEW)

    def close(self) -> None:
        """Nothing to free."""

    def _start_episode(self, seed: int, configuration_id: int | None) -> None:
        rng = np.random.default_rng(seed)
        self._pos, self._goal = rng.uniform(-0.8, 0.8, size=(2, 2))
        if self.spec.num_configurations:
            number = int(rng.integers(self.spec.num_configurations)) if configuration_id is None else configuration_id
            start, goal = divmod(number, len(GOALS))
            centres = np.array([list(STARTS.values())[start], list(GOALS.values())[goal]])
            self._pos, self._goal = centres + rng.uniform(-JITTER, JITTER, size=(2, 2))

    def _advance(self, action: np.ndarray) -> Outcome:
        self._pos = np.clip(self._pos + MAX_STEP * np.clip(action, -1.0, 1.0), -1.0, 1.0)
        distance = float(np.linalg.norm(self._pos - self._goal))
        return Outcome(success=distance < GOAL_RADIUS, metrics={"distance": distance})

    def _dense_reward(self) -> float:
        return float(1.0 - np.tanh(np.linalg.norm(self._pos - self._goal)))

    def _draw(self, camera: CameraSettings) -> np.ndarray:
        """Goal in green, disc in blue on top, uint8 ``[height, width, 3]``."""
        y = np.linspace(1.0, -1.0, camera.height)[:, None]
        x = np.linspace(-1.0, 1.0, camera.width)[None, :]
        image = np.full((camera.height, camera.width, 3), 60, np.uint8)
        discs = ((self._goal, GOAL_RADIUS, (40, 200, 80)), (self._pos, DISC_RADIUS, (50, 90, 230)))
        for centre, radius, colour in discs:
            image[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = colour
        return image

    @staticmethod
    def check(settings: EnvSettings) -> None:
        """EnvSetupError for what the toy does not know, which says what it does."""
        check_known("env.id", [settings.env_id], ENV_IDS)
        check_known("env.control_mode", [settings.control_mode], CONTROL_MODES)
        check_known("env.state_terms", settings.state_terms, STATE_TERMS)
        check_known("env.make_kwargs", settings.make_kwargs, ("numbered",))
        for camera in settings.cameras:
            if camera.eye is not None or camera.target is not None or camera.fov is not None:
                raise EnvSetupError(f"camera {camera.name!r}: the toy's cameras take a name and a size only")


class Toy(Simulator):
    """The toy as a plug-in."""

    def single(self, settings: EnvSettings) -> SingleEnv:
        """See :meth:`Simulator.single`."""
        return ToyEnv(settings)

    def check(self, settings: EnvSettings) -> None:
        """See :meth:`Simulator.check`."""
        super().check(settings)
        ToyEnv.check(settings)

    def process_bytes(self, *, renders: bool) -> tuple[int, int]:
        """See :meth:`Simulator.process_bytes`."""
        return 40 * 10**6, 10**6
