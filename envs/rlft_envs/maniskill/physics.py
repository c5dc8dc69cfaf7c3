"""A physics scene without a past. Importing it imports ManiSkill."""

from __future__ import annotations

import sapien
from mani_skill.envs.sapien_env import BaseEnv


def renew_physics(env: BaseEnv) -> None:
    """Move everything into a new, empty physics scene, so that the past cannot reach the next episode (CPU only).

    PhysX keeps its contact pairs in pools whose order depends on every contact there ever was, and the order decides in
    which sequence the solver sums: after a reset, the same episode differs in the last bits from the moment the robot
    touches something, and visibly soon after. A new scene with the same bodies in the same order costs a millisecond;
    rebuilding the task would cost 200.
    """
    old = env.scene.sub_scenes[0]
    env._set_scene_config()  # these defaults are global to the process, and another task may have changed them
    physics = sapien.physx.PhysxCpuSystem()
    physics.timestep = env.scene.px.timestep
    new = sapien.Scene([physics, old.render_system] if env.scene.can_render() else [physics])
    entities = list(old.entities)
    for entity in entities:
        entity.remove_from_scene()
    for entity in entities:
        new.add_entity(entity)
    env.scene.px, env.scene.sub_scenes[0] = physics, new
