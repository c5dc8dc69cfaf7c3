"""A package of somebody else: a Gymnasium environment with everything that can be awkward, of a few numpy lines."""

import gymnasium
import numpy as np
from gymnasium.envs.registration import register

from rlft_envs.task import Task

SIZE = 64


class Slider(gymnasium.Env):
    """A bar has to be slid to a mark: nested dictionaries, float images ``[3, h, w]``, no action bounds, one rate."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  gymnasium's habit

    def __init__(self, render_mode=None, broken=None, observation="nested"):
        self.render_mode, self._broken, self._form = render_mode, broken, observation
        self.rendered, self.observed, self.resets = 0, 0, 0
        bound = 1.0 if observation == "flat" else np.inf
        shape = (2, 2) if broken == "matrix" else (2,)
        self.action_space = gymnasium.spaces.Box(-bound, bound, shape, np.float64)
        if broken == "discrete":
            self.action_space = gymnasium.spaces.Discrete(3)
        if broken == "rate":
            self.metadata = {"render_modes": ["rgb_array"]}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        self.at, self.mark = self.np_random.uniform(-0.8, 0.8, (2, 2))
        if self._broken == "unseeded":
            self.at = self.at + 0.01 * self.resets
        return self._observe(), self._info()

    def step(self, action):
        assert action.dtype == np.float64
        assert self.action_space.contains(action)
        self.at = np.clip(self.at + 0.1 * np.asarray(action), -1.0, 1.0)
        distance = self._distance()
        if self._broken == "reward":
            distance = np.nan
        ends = distance < 0.2 or (self._broken == "fails" and self.at[0] > 0.9)
        return self._observe(), 1.0 - distance, ends, self._broken == "cuts" and self.at[0] < -0.9, self._info()

    def render(self):
        self.rendered += 1
        return np.ascontiguousarray(np.moveaxis(self._draw(), 0, -1) * 255).astype(np.uint8)

    def _observe(self):
        self.observed += 1
        if self._form == "flat":
            return np.concatenate([self.at, self.mark])
        image = self._draw()
        if self._broken == "bytes":
            image = image * 255
        if self._broken == "gray":
            image = image[:1]
        if self._broken == "wide":
            image = np.concatenate([image, image], axis=2)
        return {"view": {"front.rgb": image}, "robot": {"at": self.at, "name": "slider"}, "mark": self.mark}

    def _info(self):
        return {} if self._broken == "silent" else {"is_success": self._distance() < 0.2, "where": self.mark}

    def _distance(self):
        return float(np.linalg.norm(self.at - self.mark))

    def _draw(self):
        y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
        image = np.full((3, SIZE, SIZE), 0.2, np.float32)
        for channel, (centre, radius) in enumerate(((self.mark, 0.2), (self.at, 0.15))):
            image[channel, (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = 1.0
        return image


class SliderExpert:
    """Straight to the mark."""

    frozen_action_dims = ()
    noisy_dims = (0, 1)
    success_counts = True

    def __init__(self, env):
        self._env = env.env.unwrapped

    def act(self):
        return np.clip((self._env.mark - self._env.at) / 0.1, -1.0, 1.0).astype(np.float32)

    def hold(self):
        return np.zeros(2, np.float32)


class OnDemand(gymnasium.Wrapper):
    """Renders nothing in a step."""

    def __init__(self, env, settings):
        super().__init__(env)
        self._draw, env.unwrapped._draw = env.unwrapped._draw, lambda: np.zeros((3, 1, 1), np.float32)

    def observe_now(self):
        inner = self.env.unwrapped
        return {"view": {"front.rgb": self._draw()}, "robot": {"at": inner.at}, "mark": inner.mark}


register("Slider-v0", entry_point=Slider, max_episode_steps=5)
register("SliderNameless-v0", entry_point=Slider)
register("SliderOnDemand-v0", entry_point=Slider)

TASKS = (
    Task(("Slider-v0",), "slide the bar to the mark", expert=SliderExpert),
    Task(("SliderOnDemand-v0",), "slide the bar to the mark", expert=SliderExpert, adapt=OnDemand),
)
