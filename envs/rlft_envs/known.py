"""Whether a task can be had, asked before anything of it is built."""

from __future__ import annotations

from collections.abc import Collection

from rlft.types import EnvSettings
from rlft_envs.assets import point_maniskill_at
from rlft_envs.errors import unknown
from rlft_envs.maniskill.vulkan import check_vulkan
from rlft_envs.numbered import numbered
from rlft_envs.simulators import SIMULATORS


def check_task(settings: EnvSettings, *, known: Collection[str] = ()) -> None:
    """Refuse an id that does not exist, and missing assets where that can be seen; no environment is built.

    Args:
        settings: the environment.
        known: ids that are certain to exist. Any other one of ManiSkill's is looked up in its registry, which takes
            the seconds of importing it.

    Raises:
        EnvSetupError: unknown simulator, id or split; missing assets; no renderer.
    """
    if settings.simulator not in SIMULATORS:
        raise unknown("env.simulator", settings.simulator, SIMULATORS)
    if settings.simulator == "toy":
        from rlft_envs.toy import ToyEnv

        ToyEnv.check(settings)
        return
    check_vulkan()
    if numbered(settings) is not None or settings.env_id in known:  # a numbered task has been found, with its assets
        return
    point_maniskill_at(settings)
    from rlft_envs.maniskill.setup import task_class

    task_class(settings)
