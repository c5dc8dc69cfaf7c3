"""The objects that environments show, on both backends. Imported lazily, with ManiSkill.

Three roles: ``source`` is to be moved, ``target`` is where to, ``extra`` is a distractor. A stage has three methods:
``show`` puts some things, and no others, into the environments named; ``move`` lays the sources of the environments
named, which are running, somewhere else; ``read_contacts`` says what the last step led to.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sapien
import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs import Actor, Pose

from rlft_envs.assets import visual_mesh
from rlft_envs.errors import EnvSetupError
from rlft_envs.maniskill.env import renew_physics
from rlft_tasks.put_on_plate.library import Model
from rlft_tasks.put_on_plate.settle import add_collision
from rlft_tasks.put_on_plate.terms import Seen, holding

ROLES = ("source", "target", "extra")
Assignment = Mapping[str, tuple[Model, np.ndarray]]
"""Role -> who plays it, and its pose, float32 ``[7]``."""


def actor_builder(env: BaseEnv, model: Model) -> Any:
    """A ManiSkill builder with a model's meshes."""
    builder = env.scene.create_actor_builder()
    add_collision(builder, model)
    builder.add_visual_from_file(filename=str(visual_mesh(model.folder)))
    return builder


def at_rest(pose: np.ndarray, device: torch.device) -> torch.Tensor:
    """The state of things that lie still, float32 ``[..., 13]``, from poses ``[..., 7]``."""
    return torch.nn.functional.pad(torch.as_tensor(pose), (0, 6)).to(device)


class CpuStage:
    """One environment: only what it shows is in the scene.

    Every reset begins with an empty physics scene, into which the robot, the table and then the new things go in a
    fixed order, so that nothing of an earlier episode can be felt in a later one. All roles are always there, so that
    the simulator's state has one width: nobody's is played by a copy of the source that hangs far below the table.
    """

    NOWHERE = np.array([0.0, 0.0, -9.0, 1.0, 0.0, 0.0, 0.0], np.float32)

    def __init__(self, env: BaseEnv, roles: Sequence[str]) -> None:
        self._env, self._roles = env, roles
        self.actors: dict[str, Actor] = {}

    def show(self, env_idx: Sequence[int], assignments: Sequence[Assignment]) -> None:
        """Build what is to be seen, which takes milliseconds, for meshes stay in memory."""
        scene = self._env.scene
        for role, actor in self.actors.items():
            actor._objs[0].remove_from_scene()
            del scene.actors[role]
            scene.remove_from_state_dict_registry(actor)
        renew_physics(self._env)
        nobody = (assignments[0]["source"][0], self.NOWHERE)
        self.actors = {role: self._build(role, *assignments[0].get(role, nobody)) for role in self._roles}

    def move(self, env_idx: Sequence[int], poses: np.ndarray) -> None:
        """Lay the source somewhere else: float32 ``[1, 7]``."""
        self.actors["source"].set_state(at_rest(poses, self._env.device))

    def read_contacts(self) -> Seen:
        """What the last step led to."""
        source, target, agent = self.actors["source"], self.actors["target"], self._env.agent
        fingers = (agent.finger1_link.pose.p + agent.finger2_link.pose.p) / 2
        force = torch.linalg.norm(self._env.scene.get_pairwise_contact_forces(source, target), dim=1)
        return Seen(source.pose.p, target.pose.p, fingers, agent.is_grasping(source), force)

    def _build(self, role: str, model: Model, pose: np.ndarray) -> Actor:
        scene, builder = self._env.scene, actor_builder(self._env, model)
        builder.set_name(role)
        entity = builder.build_entity()
        entity.name = f"scene-0_{role}"
        entity.pose = sapien.Pose(pose[:3], pose[3:])
        if pose is self.NOWHERE:
            entity.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent).disable_gravity = True
        scene.sub_scenes[0].add_entity(entity)
        actor = Actor.create_from_entities([entity], scene, torch.tensor([0]), shared_name=role)
        actor.initial_pose = Pose.create(entity.pose)
        scene.actors[role] = actor
        scene.add_to_state_dict_registry(actor)
        return actor


class GpuStage:
    """E environments of one batched simulation: every thing of the split is in each, parked out of sight when unused.

    What is shown is written into the simulator's buffer of body states by one indexed assignment, and what is seen is
    read by one contact query and indexing; nothing is read back to the host. **It has not been run on a GPU**: it is
    written to the API of mani_skill 3.0.1 and SAPIEN 3, and tested on scripted buffers (tests/contract). It is made
    while the environment's scene is being built. Objects may be a source or a distractor, plates a target or one.
    """

    SHELF_Z = -5.0  # metres; far under the table
    SPACING = 0.3

    def __init__(self, env: BaseEnv, objects: Sequence[Model], plates: Sequence[Model]) -> None:
        if env.scene.parallel_in_single_scene:  # all environments share a physics scene, whose poses are shifted
            raise EnvSetupError("parallel_in_single_scene=True is not supported by put-on-plate; leave it out")
        self._env, self._n_objects, models = env, len(objects), (*objects, *plates)
        shelf = env.scene.create_actor_builder()
        shelf.add_box_collision(half_size=[1.0, self.SPACING * len(models), 0.1])
        shelf.initial_pose = sapien.Pose([0.0, 0.0, self.SHELF_Z - 0.1])
        shelf.build_static("shelf")
        self._parked = np.zeros((len(models), 7), np.float32)
        self._parked[:, 1] = self.SPACING * (np.arange(len(models)) - len(models) / 2)
        self._parked[:, 2:4] = self.SHELF_Z + 0.1, 1.0
        self.actors: list[Actor] = []
        for model, pose in zip(models, self._parked):
            builder = actor_builder(env, model)
            builder.initial_pose = sapien.Pose(pose[:3])
            self.actors.append(builder.build(model.key))
        self._index = {model.key: k for k, model in enumerate(models)}
        self._here = torch.arange(env.num_envs, device=env.device)
        # Who plays each role, as an index into `actors`; -1 for nobody. int `[3, E]`.
        self.roles = torch.full((len(ROLES), env.num_envs), -1, dtype=torch.int64, device=env.device)

    def show(self, env_idx: Sequence[int], assignments: Sequence[Assignment]) -> None:
        """Write the rows of the environments named; everything of the split that they were made with has been built."""
        roles = np.full((len(ROLES), len(assignments)), -1)
        poses = np.repeat(self._parked[:, None], len(assignments), axis=1)
        for row, assignment in enumerate(assignments):
            for role, (model, pose) in assignment.items():
                k = self._index.get(model.key)
                if k is None:
                    wrong = f"{model.key} is not in this simulation"
                    raise EnvSetupError(f"{wrong}; give obj_set to make_kwargs, not to reset")
                roles[ROLES.index(role), row], poses[k, row] = k, pose
        ids = torch.as_tensor(env_idx, device=self._env.device)
        self.roles[:, ids] = torch.from_numpy(roles).to(self._env.device)
        self._states[self._bodies[:, ids]] = at_rest(poses, self._env.device)  # the reset applies it

    def move(self, env_idx: Sequence[int], poses: np.ndarray) -> None:
        """Lay the sources of the environments named somewhere else: float32 ``[k, 7]``."""
        self._env.scene._gpu_fetch_all()  # else everything else would be put back to before the step
        ids = torch.as_tensor(env_idx, device=self._env.device)
        self._states[self._bodies[self.roles[0, ids], ids]] = at_rest(poses, self._env.device)
        self._env.scene.px.gpu_apply_rigid_dynamic_data()

    def read_contacts(self) -> Seen:
        """What the last step led to; in an environment that was never reset nobody touches anything."""
        agent, physics = self._env.agent, self._env.scene.px
        physics.gpu_query_contact_pair_impulses(self._contacts)
        forces = self._contacts.cuda_impulses.torch() / physics.timestep
        source, target = self.roles[0].clamp(min=0), self.roles[1].clamp(min=self._n_objects)
        n, E = self._n_objects, len(self._here)
        on_fingers = forces[: 2 * n * E].view(2, n, E, 3)[:, source, self._here]
        between = forces[2 * n * E :].view(n, -1, E, 3)[source, target - n, self._here]
        left, right = agent.finger1_link.pose, agent.finger2_link.pose
        opening = torch.stack([left.to_transformation_matrix()[:, :3, 1], -right.to_transformation_matrix()[:, :3, 1]])
        positions = self._states[self._bodies[torch.stack([source, target]), self._here], :3]
        force = torch.linalg.norm(between, dim=1)
        return Seen(positions[0], positions[1], (left.p + right.p) / 2, holding(on_fingers, opening), force)

    @property
    def _states(self) -> torch.Tensor:
        """The simulator's own buffer of poses and velocities, float ``[bodies, 13]``."""
        return self._env.scene.px.cuda_rigid_body_data.torch()

    @cached_property
    def _bodies(self) -> torch.Tensor:
        """The rows of that buffer, int ``[n, E]``; known once the simulation has been set up."""
        return torch.stack([actor._body_data_index for actor in self.actors])

    @cached_property
    def _contacts(self) -> Any:
        """The one query: each finger with each object, and each object with each plate, in every environment."""
        agent, objects, plates = self._env.agent, self.actors[: self._n_objects], self.actors[self._n_objects :]
        touching = [(finger, thing) for finger in (agent.finger1_link, agent.finger2_link) for thing in objects]
        touching += [(thing, plate) for thing in objects for plate in plates]
        pairs = [pair for a, b in touching for pair in zip(a._bodies, b._bodies)]
        return self._env.scene.px.gpu_create_contact_pair_impulse_query(pairs)
