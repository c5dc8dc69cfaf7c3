"""Which simulators there are: the one place that a new one is added to. Each is imported when it is asked for."""

from __future__ import annotations

from rlft.types import EnvSettings
from rlft_envs.assets import point_maniskill_at
from rlft_envs.errors import unknown
from rlft_envs.single import SingleEnv

SIMULATORS = ("maniskill", "toy")


def build_single_env(settings: EnvSettings) -> SingleEnv:
    """Build one environment of the simulator that the settings name.

    Raises:
        EnvSetupError: the simulator does not exist, or refuses the settings.
    """
    if settings.simulator == "maniskill":
        point_maniskill_at(settings)
        from rlft_envs.maniskill.env import ManiSkillEnv

        return ManiSkillEnv(settings)
    if settings.simulator == "toy":
        from rlft_envs.toy import ToyEnv

        return ToyEnv(settings)
    raise unknown("env.simulator", settings.simulator, SIMULATORS)
