"""Where dropped things come to rest, computed aside. Imported lazily, with SAPIEN.

The published environments drop objects in the running simulation and let it run until they lie still, which moves
every other environment of a batched simulation too. Here each configuration falls in a small physics scene of its own,
on the CPU, and only the result is placed: nothing else moves, and the result depends on the configuration alone.

A fall takes about 10 ms, and falls are computed one after another. Measured: threads gain nothing, since SAPIEN keeps
the interpreter's lock while it steps, and several configurations in one physics scene come to rest elsewhere (up to
0.4 m, for what rolls). So falls are kept: the table's photograph does not matter to them.
"""

from functools import lru_cache
from math import cos, sin
from pathlib import Path

import numpy as np
import sapien
from sapien.physx import PhysxCpuSystem, PhysxMaterial, PhysxRigidDynamicComponent
from sapien.wrapper.actor_builder import ActorBuilder

from rlft_tasks.put_on_plate.configurations import Dropped
from rlft_tasks.put_on_plate.library import Model

TIMESTEP = 1 / 500  # seconds
SHORT, LONG = 50, 600  # steps; the long wait is for what still moves after the short one
LOOK = 25  # steps between two looks whether everything sleeps: from then on nothing moves any more
KEPT = 65_536  # results in memory, about 60 MB; Main-v3's training split has 50,176
AT_REST_LINEAR, AT_REST_ANGULAR = 1e-3, 1e-2  # m/s and rad/s, summed over the things
FRICTION = 1.0
STAGE_POSE = sapien.Pose(q=[0.707, 0.707, 0, 0])
STAGE_AT = sapien.Pose([2.0634, 2.8313, 0.0])


def add_collision(builder: ActorBuilder, model: Model) -> None:
    """Give an actor its collision shape, mass and friction."""
    material = PhysxMaterial(static_friction=FRICTION, dynamic_friction=FRICTION, restitution=0.0)
    builder.add_multiple_convex_collisions_from_file(str(model.collision), material=material, density=model.density)


@lru_cache(maxsize=KEPT)
def settle_objects(things: tuple[Dropped, ...], stage: Path) -> np.ndarray:
    """Drop things onto the table, whose mesh is ``stage``, together, and wait until they lie still.

    Where they lie then is float32 ``[n, 7]``: positions in metres, wxyz quaternions.
    """
    physics = PhysxCpuSystem()
    physics.timestep = TIMESTEP
    scene = sapien.Scene([physics])
    table = ActorBuilder().set_scene(scene)
    table.add_nonconvex_collision_from_file(str(stage), pose=STAGE_POSE)
    table.initial_pose = STAGE_AT
    table.build_static("table")
    entities = []
    for thing in things:
        builder = ActorBuilder().set_scene(scene)
        add_collision(builder, thing.model)
        builder.initial_pose = sapien.Pose(thing.at, [cos(thing.yaw / 2), 0.0, 0.0, sin(thing.yaw / 2)])
        entities.append(builder.build(thing.model.key))
    bodies = [entity.find_component_by_type(PhysxRigidDynamicComponent) for entity in entities]
    for _ in range(SHORT):
        physics.step()
    linear = sum(float(np.linalg.norm(body.linear_velocity)) for body in bodies)
    angular = sum(float(np.linalg.norm(body.angular_velocity)) for body in bodies)
    if linear > AT_REST_LINEAR or angular > AT_REST_ANGULAR:
        for _ in range(LONG // LOOK):
            for _ in range(LOOK):
                physics.step()
            if all(body.is_sleeping for body in bodies):
                break
    poses = np.array([[*entity.pose.p, *entity.pose.q] for entity in entities], np.float32)
    poses.setflags(write=False)
    return poses
