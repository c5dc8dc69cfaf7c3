"""The objects that environments show, on both backends. Imported lazily, with ManiSkill.

Three roles: ``source`` is to be moved, ``target`` is where to, ``extra`` is a distractor. Whoever asks gets, for a
role, the actors that play it now and in which environments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import sapien
import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs import Actor, Pose

from rlft_envs.errors import EnvSetupError
from rlft_envs.maniskill.physics import renew_physics
from rlft_envs.put_on_plate.library import Model
from rlft_envs.put_on_plate.rest import add_collision

Cast = Mapping[str, tuple[Model, np.ndarray]]
"""Role -> who plays it, and its pose, float32 ``[7]``."""


class Stage(Protocol):
    """Who is where."""

    def show(self, env_idx: Sequence[int], casts: Sequence[Cast]) -> None:
        """Put these things, and no others, into the environments named."""
        ...

    def playing(self, role: str) -> list[tuple[Actor, torch.Tensor]]:
        """The actors in a role, each with the environments it plays in: bool ``[E]``."""
        ...


def actor_builder(env: BaseEnv, model: Model) -> Any:
    """A ManiSkill builder with a model's meshes."""
    builder = env.scene.create_actor_builder()
    add_collision(builder, model)
    builder.add_visual_from_file(filename=str(model.visual))
    return builder


def still(pose: np.ndarray, device: torch.device) -> torch.Tensor:
    """The state of things that lie still, float32 ``[n, 13]``, from poses ``[n, 7]``."""
    return torch.as_tensor(np.pad(pose, ((0, 0), (0, 6))), device=device)


class CpuStage:
    """One environment: only what it shows is in the scene.

    Every reset begins with an empty physics scene, into which the robot, the table and then the new things go in a
    fixed order, so that nothing of an earlier episode can be felt in a later one.

    Args:
        env: the environment.
        roles: those that there always are, so that the simulator's state has one width: nobody's role is played by a
            copy of the source that hangs far below the table.
    """

    NOWHERE = np.array([0.0, 0.0, -9.0, 1.0, 0.0, 0.0, 0.0], np.float32)

    def __init__(self, env: BaseEnv, roles: Sequence[str]) -> None:
        self._env, self._roles = env, roles
        self.actors: dict[str, Actor] = {}

    def show(self, env_idx: Sequence[int], casts: Sequence[Cast]) -> None:
        """See :meth:`Stage.show`; builds what is needed, which takes milliseconds, for meshes stay in memory."""
        scene = self._env.scene
        for role, actor in self.actors.items():
            actor._objs[0].remove_from_scene()
            del scene.actors[role]
            scene.remove_from_state_dict_registry(actor)
        renew_physics(self._env)
        nobody = (casts[0]["source"][0], self.NOWHERE)
        self.actors = {role: self._build(role, *casts[0].get(role, nobody)) for role in self._roles}

    def playing(self, role: str) -> list[tuple[Actor, torch.Tensor]]:
        """See :meth:`Stage.playing`."""
        return [(self.actors[role], torch.ones(1, dtype=torch.bool))]

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
    """N environments of one batched simulation: every thing of the split is in each, parked out of sight when unused.

    Args:
        env: the environment, while its scene is being built.
        models: what may be shown.
    """

    SHELF_Z = -5.0  # metres; far under the table
    SPACING = 0.3

    def __init__(self, env: BaseEnv, models: Sequence[Model]) -> None:
        self._env = env
        self._n = len(models)
        shelf = env.scene.create_actor_builder()
        shelf.add_box_collision(half_size=[1.0, self.SPACING * self._n, 0.1])
        shelf.initial_pose = sapien.Pose([0.0, 0.0, self.SHELF_Z - 0.1])
        shelf.build_static("shelf")
        self.actors: list[Actor] = []
        for k, model in enumerate(models):
            builder = actor_builder(env, model)
            builder.initial_pose = sapien.Pose(self._parked(k)[:3])
            self.actors.append(builder.build(model.key))
        self._index = {model.key: k for k, model in enumerate(models)}
        self._role = {
            role: torch.full((env.num_envs,), -1, dtype=torch.int64, device=env.device)
            for role in ("source", "target", "extra")
        }

    def show(self, env_idx: Sequence[int], casts: Sequence[Cast]) -> None:
        """See :meth:`Stage.show`; only rows of the environments named are written.

        Raises:
            EnvSetupError: something was not built; the whole split that the environment was made with is.
        """
        ascending = sorted(zip((int(i) for i in env_idx), casts), key=lambda pair: pair[0])
        ids = torch.tensor([i for i, _ in ascending], dtype=torch.int64, device=self._env.device)
        poses = np.stack([np.stack([self._parked(k) for _ in ascending]) for k in range(len(self.actors))])
        for role in self._role:
            self._role[role][ids] = -1
        for row, (i, cast) in enumerate(ascending):
            for role, (model, pose) in cast.items():
                if model.key not in self._index:
                    raise EnvSetupError(
                        f"{model.key} is not in this simulation; give obj_set to make_kwargs, not to reset"
                    )
                self._role[role][i] = self._index[model.key]
                poses[self._index[model.key], row] = pose
        for actor, pose in zip(self.actors, poses):
            actor.set_state(still(pose, self._env.device), ids)

    def playing(self, role: str) -> list[tuple[Actor, torch.Tensor]]:
        """See :meth:`Stage.playing`."""
        who = self._role[role]
        return [(self.actors[k], who == k) for k in torch.unique(who).tolist() if k >= 0]

    def _parked(self, k: int) -> np.ndarray:
        """Its pose on the shelf, ``[7]``."""
        return np.array([0.0, self.SPACING * (k - self._n / 2), self.SHELF_Z + 0.1, 1, 0, 0, 0], np.float32)


@dataclass(frozen=True)
class Seen:
    """What there is to see of the task now, in every environment.

    Attributes:
        source, target: positions, float ``[E, 3]``, metres.
        fingers: the point between the fingers, float ``[E, 3]``.
        grasped: both fingers press on the source, bool ``[E]``.
        force: size of the contact force between source and target, float ``[E]``, newtons.
    """

    source: torch.Tensor
    target: torch.Tensor
    fingers: torch.Tensor
    grasped: torch.Tensor
    force: torch.Tensor


def look(stage: Stage, agent: Any, scene: Any) -> Seen:
    """Gather it from whoever plays source and target in each environment."""
    sources, targets = stage.playing("source"), stage.playing("target")
    fingers = (agent.finger1_link.pose.p + agent.finger2_link.pose.p) / 2
    force = torch.zeros(len(fingers), device=fingers.device)
    grasped = torch.zeros(len(fingers), dtype=torch.bool, device=fingers.device)
    for source, here in sources:
        grasped = torch.where(here, agent.is_grasping(source), grasped)
        for target, there in targets:
            if bool((here & there).any()):
                between = torch.linalg.norm(scene.get_pairwise_contact_forces(source, target), dim=1)
                force = torch.where(here & there, between, force)
    return Seen(_positions(sources), _positions(targets), fingers, grasped, force)


def _positions(players: list[tuple[Actor, torch.Tensor]]) -> torch.Tensor:
    out = players[0][0].pose.p
    for actor, here in players[1:]:
        out = torch.where(here[:, None], actor.pose.p, out)
    return out
