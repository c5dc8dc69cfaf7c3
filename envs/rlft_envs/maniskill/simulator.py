"""ManiSkill as a plug-in; loads nothing of it before it is asked to build."""

import logging
from dataclasses import replace

from rlft.errors import require_extra
from rlft.types import EnvSettings, VecEnv
from rlft_envs.assets import point_maniskill_at
from rlft_envs.maniskill.devices import check_vulkan, physics_device, render_device
from rlft_envs.simulator import Simulator
from rlft_envs.single import SingleEnv
from rlft_envs.task import local_id, task_of

log = logging.getLogger(__name__)


class ManiSkill(Simulator):
    """ManiSkill 3: one environment after another on the CPU, or all in one GPU simulation."""

    packages = ("mani_skill", "sapien", "toppra", "numpy")

    def single(self, settings: EnvSettings) -> SingleEnv:
        """See :meth:`Simulator.single`."""
        point_maniskill_at(settings)
        from rlft_envs.maniskill.env import ManiSkillEnv

        return ManiSkillEnv(settings)

    def batched(self, settings: EnvSettings) -> VecEnv:
        """See :meth:`Simulator.batched`."""
        point_maniskill_at(settings)
        from rlft_envs.maniskill.batched import ManiSkillGpuVecEnv

        return ManiSkillGpuVecEnv(settings)

    def check(self, settings: EnvSettings) -> None:
        """See :meth:`Simulator.check`."""
        _check_machine()
        point_maniskill_at(settings)
        super().check(settings)
        task = task_of(settings)
        if task.check is None and local_id(settings.env_id) not in task.ids:
            from rlft_envs.maniskill.setup import task_class  # takes seconds, and some ids are certain to exist

            task_class(settings)

    def process_bytes(self, *, renders: bool) -> tuple[int, int]:
        """See :meth:`Simulator.process_bytes`; on a two-core machine without a GPU."""
        return (1050 if renders else 740) * 10**6, 4 * 10**6

    def resolved(self, settings: EnvSettings) -> EnvSettings:
        """See :meth:`Simulator.resolved`."""
        _check_machine()
        settings = replace(settings, render_backend=render_device(settings))
        log.info("ManiSkill: %s renders on %s", physics_device(settings), settings.render_backend)
        return settings


def _check_machine() -> None:
    require_extra("maniskill", "mani_skill", "sapien")
    check_vulkan()
