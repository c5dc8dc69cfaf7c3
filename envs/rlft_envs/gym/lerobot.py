"""What lerobot's environment factory knows (aloha, pusht, libero, metaworld, ...), as a plug-in."""

from collections.abc import Mapping
from typing import Any

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError, unknown
from rlft_envs.gym.options import Options as GymOptions
from rlft_envs.gym.simulator import Gymnasium, adapted
from rlft_envs.task import Task, local_id


class LeRobot(Gymnasium):
    """``env.id`` is lerobot's environment type, or ``type/task``; ``env.make_kwargs`` are its config's fields.

    Observations have the names that lerobot's policies see, after the processors of its evaluation:
    ``observation.images.<camera>`` and ``observation.state``. A worker imports lerobot, and torch with it.
    """

    packages = ("lerobot", *Gymnasium.packages)

    def process_bytes(self, *, renders: bool) -> tuple[int, int] | None:
        """Never measured."""
        return None

    def image_key(self, camera: str) -> str:
        """See :meth:`Gymnasium.image_key`."""
        return f"observation.images.{camera}"

    def _known(self, settings: EnvSettings, task: Task) -> None:
        self._config(settings)

    def _config(self, settings: EnvSettings) -> Any:
        """The config that lerobot builds the environment from."""
        from lerobot.envs.configs import EnvConfig

        kind, _, name = local_id(settings.env_id).partition("/")
        if kind not in EnvConfig.get_known_choices():
            raise unknown("env.id", kind, EnvConfig.get_known_choices())
        try:
            return EnvConfig.get_choice_class(kind)(**({"task": name} if name else {}), **settings.make_kwargs)
        except (TypeError, ValueError) as error:
            raise EnvSetupError(f"env.make_kwargs = {dict(settings.make_kwargs)} for {kind}: {error}") from error

    def _make(self, settings: EnvSettings, options: GymOptions, task: Task) -> tuple[Any, float | None]:
        from gymnasium.wrappers import TimeLimit
        from lerobot.envs.factory import make_env

        config = self._config(settings)
        made = [(suite, number, vec) for suite, ones in make_env(config).items() for number, vec in ones.items()]
        if len(made) != 1:
            for _, _, vec in made:
                vec.close()
            names = ", ".join(f"{suite} {number}" for suite, number, _ in made)
            remedy = "choose one, for instance by env.make_kwargs.task_ids: [0]"
            raise EnvSetupError(f"env.id = {settings.env_id!r} is {len(made)} tasks ({names}); {remedy}")
        env = made[0][2].envs[0]
        while isinstance(env, TimeLimit):
            env = env.env
        return _lerobot_names(adapted(env, settings, task), config), float(config.fps)


def _lerobot_names(env: Any, config: Any) -> Any:
    """The environment with ``observe_now``: its observation through lerobot's own processors."""
    import gymnasium
    import numpy as np
    from lerobot.envs.utils import preprocess_observation

    process, of_actions = config.get_env_processors()
    if of_actions.steps:
        raise EnvSetupError(f"lerobot changes the actions of {config.type} by {of_actions.steps}: not supported")
    inner = env.get_wrapper_attr("observe_now") if env.has_wrapper_attr("observe_now") else None

    def batched(tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {name: batched(value) for name, value in tree.items()}
        return np.array(tree, order="C")[None]  # torch takes no images that are stored upside down

    class LeRobotNames(gymnasium.Wrapper):
        def reset(self, **arguments: Any) -> Any:
            self._raw, info = self.env.reset(**arguments)
            return {}, info

        def step(self, action: np.ndarray) -> Any:
            self._raw, *rest = self.env.step(action)
            return {}, *rest

        def observe_now(self) -> Any:
            return process(preprocess_observation(batched(inner() if inner else self._raw)))

    return LeRobotNames(env)
