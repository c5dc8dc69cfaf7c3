"""Explicit, documented changes of a task's distribution: another place for the object, another goal, other contact.

They make the difference between the world of the demonstrations and the world of reinforcement learning. A variation
is given as ``make_kwargs: {variation: {...}}`` with the fields of :class:`Variation`. It is a subclass of the task,
made when needed: upstream code is not changed, and what is not named keeps the task's own randomisation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Len
from pydantic import AfterValidator, AllowInfNan

from rlft_envs.checks import parsed
from rlft_envs.errors import EnvSetupError
from rlft_envs.task import Task, ids_with


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[1] < bounds[0]:
        raise ValueError("must be [low, high] with low <= high")
    return bounds


Finite = Annotated[float, AllowInfNan(False)]
Positive = Annotated[Finite, Gt(0)]
Range = Annotated[tuple[Finite, Finite], AfterValidator(_ascending)]
Region = tuple[Range, Range]  # `[[x_low, x_high], [y_low, y_high]]`, metres; uniform in it


@dataclass(frozen=True)
class Variation:
    """What differs from the task as published. None keeps the task's own."""

    object_region: Region | None = None  # where the object starts
    object_yaw: Range | None = None  # radians: its heading is uniform in this range
    object_half_size: Positive | None = None  # half the cube's edge, metres
    object_mass: Positive | None = None  # kilograms
    # static and dynamic (contact averages it with the other body's)
    object_friction: Annotated[Finite, Ge(0)] | None = None
    # `[dx, dy]` or `[dx, dy, dz]`, metres, added to the goal. In PushCube and PullCube the goal is placed relative to
    # the object, so this shifts the direction of the push
    goal_offset: Annotated[tuple[Finite, ...], Len(2, 3)] | None = None
    goal_region: Region | None = None  # where the goal lies

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None) -> "Variation | None":
        """Check (EnvSetupError) and freeze a configuration's mapping; None or an empty one means no variation."""
        return parsed(cls, values, "env.make_kwargs.variation") if values else None


def varied(task: type, env_id: str, described: Task, variation: Variation) -> type:
    """Subclass a task so that it starts its episodes as the variation says; EnvSetupError where it has none."""
    if described.movable is None:
        raise EnvSetupError(f"{env_id} takes no variation; tasks that do: {', '.join(ids_with('movable'))}")
    object_name, goal_name = described.movable

    class Varied(task):
        def _load_scene(self, options: dict) -> None:
            if variation.object_half_size is not None:
                self.cube_half_size = variation.object_half_size
            super()._load_scene(options)
            _set_contact(getattr(self, object_name), variation)

        def _initialize_episode(self, env_idx: Any, options: dict) -> None:
            super()._initialize_episode(env_idx, options)
            _place(getattr(self, object_name), getattr(self, goal_name), described, env_idx, variation)

    Varied.__name__ = Varied.__qualname__ = f"Varied{task.__name__}"
    return Varied


def _set_contact(actor: Any, variation: Variation) -> None:
    """Set mass (inertia with it) and friction of the object, before the physics starts."""
    import sapien.physx as physx

    for entity in actor._objs:
        body = entity.find_component_by_type(physx.PhysxRigidDynamicComponent)
        if variation.object_mass is not None:
            body.set_inertia(body.get_inertia() * (variation.object_mass / body.get_mass()))
            body.set_mass(variation.object_mass)
        if variation.object_friction is not None:
            # A new material: the shapes share the scene's default one with the table.
            material = physx.PhysxMaterial(variation.object_friction, variation.object_friction, 0.0)
            for shape in body.get_collision_shapes():
                shape.set_physical_material(material)


def _place(object_: Any, goal: Any, described: Task, env_idx: Any, variation: Variation) -> None:
    """Move object and goal of the environments that are being reset.

    Draws come after the task's own, from the same stream: torch's, which ManiSkill has seeded for the episode, or in a
    batched simulation each row's own (:mod:`rlft_envs.maniskill.row_draws`).
    Setting a pose touches only the environments under reset, but reading one gives all: hence the selection.
    """
    import torch
    from mani_skill.utils.structs import Pose

    def uniform(region: Any) -> torch.Tensor:
        low, high = torch.tensor(region, device=env_idx.device).T
        return low + torch.rand(len(env_idx), len(low), device=env_idx.device) * (high - low)

    at, q = object_.pose.p[env_idx].clone(), object_.pose.q[env_idx].clone()
    goal_at, goal_q = goal.pose.p[env_idx].clone(), goal.pose.q[env_idx].clone()
    before = at.clone()
    if variation.object_region is not None:
        at[:, :2] = uniform(variation.object_region)
    if variation.object_yaw is not None:
        half = uniform([variation.object_yaw])[:, 0] / 2
        q = torch.stack([half.cos(), torch.zeros_like(half), torch.zeros_like(half), half.sin()], dim=1)
    if described.goal_follows_object:
        goal_at[:, :2] += at[:, :2] - before[:, :2]
    if variation.goal_region is not None:
        goal_at[:, :2] = uniform(variation.goal_region)
    if variation.goal_offset is not None:
        offset = torch.tensor(variation.goal_offset, device=env_idx.device)
        goal_at[:, : len(offset)] += offset
    object_.set_pose(Pose.create_from_pq(at, q))
    goal.set_pose(Pose.create_from_pq(goal_at, goal_q))
