"""PutOnPlateInScene25's scene class with N environments whose actors, robot and contact forces are scripted tensors.

Everything but physics is real: the class's own reset, the GPU backend's stage, success terms. It shows that what
belongs to an environment is read and written at its index, without a GPU.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

CPU = torch.device("cpu")


class ScriptedActor:
    """N bodies; a state is written where ManiSkill's batched actor writes it: ascending rows of ``env_idx``.

    As on the GPU, poses are read from and written to a buffer (``raw``), which is copied from and to the simulation
    (``simulated``) when asked.
    """

    def __init__(self, name, num_envs, pose):
        self.name = name
        self.raw = torch.tensor([[*pose.p, *pose.q]] * num_envs)
        self.simulated = self.raw.clone()

    @property
    def pose(self):
        return SimpleNamespace(p=self.raw[:, :3], q=self.raw[:, 3:])

    def set_state(self, state, env_idx):
        mask = torch.zeros(len(self.raw), dtype=torch.bool)
        mask[env_idx] = True
        self.raw[mask] = state[:, :7]


class ScriptedBuilder:
    """Builds scripted actors instead of bodies."""

    def __init__(self, scene):
        self._scene, self.initial_pose = scene, None

    def __getattr__(self, name):
        if not name.startswith("add_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self

    def build(self, name):
        return ScriptedActor(name, self._scene.num_envs, self.initial_pose)

    build_static = build


class ScriptedRobot:
    """Joint positions, written in ascending order of the environments being reset."""

    def __init__(self, scene):
        self._scene = scene
        self.qpos = torch.zeros(scene.num_envs, 8)
        self.robot = SimpleNamespace(set_pose=lambda pose: None)
        tip = SimpleNamespace(pose=SimpleNamespace(p=torch.zeros(scene.num_envs, 3)))
        self.finger1_link = self.finger2_link = tip

    def reset(self, init_qpos):
        self.qpos[self._scene.reset_mask] = init_qpos

    def is_grasping(self, actor):
        return self._scene.held.get(actor.name, torch.zeros(self._scene.num_envs, dtype=torch.bool))


class ScriptedScene:
    """Drives one scene object.

    Attributes:
        env: a :class:`rlft_envs.put_on_plate.scene.PutOnPlate`.
        forces: (object, plate) -> contact force in every environment, newtons.
        held: object -> whether the fingers hold it, in every environment.
    """

    def __init__(self, env_id, num_envs, root, obj_set):
        from rlft_envs.put_on_plate.scene import PutOnPlate
        from rlft_envs.put_on_plate.stage import GpuStage

        count = num_envs

        class Scripted(PutOnPlate):
            num_envs, device, gpu_sim_enabled = count, CPU, True

            def __init__(self):
                self.env_id, self._assets_root = env_id, root
                self._first_set = self.configurations(obj_set)
                self.variant = self._first_set.numbering.variant

            def _set_scene_config(self):
                pass

        self.num_envs, self.forces, self.held = num_envs, {}, {}
        self.reset_mask = torch.zeros(num_envs, dtype=torch.bool)
        self.env = Scripted()
        self.env.scene = SimpleNamespace(
            create_actor_builder=lambda: ScriptedBuilder(self),
            can_render=lambda: False,
            get_pairwise_contact_forces=self._contact,
            _gpu_fetch_all=self._fetch,
            px=SimpleNamespace(gpu_apply_rigid_dynamic_data=self._apply),
        )
        self.env.agent = ScriptedRobot(self)
        self.env._elapsed_steps = torch.zeros(num_envs, dtype=torch.int32)
        self.env.stage = GpuStage(self.env, self.env._first_set.models())
        self.env._allocate()

    def start(self, ids, seeds, numbers=None):
        """A reset of the environments named, as ManiSkill's would call it."""
        idx = torch.tensor(ids)
        self.reset_mask[:] = False
        self.reset_mask[idx] = True
        self.env._episode_seed = np.array(seeds)
        self.env._elapsed_steps[idx] = 0
        self.env._initialize_episode(idx, {} if numbers is None else {"episode_id": torch.tensor(numbers)})
        self._apply()

    def step(self, drift=0.0):
        """A control step whose physics moves everything along x, metres."""
        for actor in self.env.stage.actors:
            actor.simulated[:, 0] += drift
        self.env._after_control_step()
        self._fetch()
        self.env._elapsed_steps += 1

    def actor_pose(self, role, i):
        """The pose of whoever plays a role in environment i, ``[7]``."""
        actor = next(actor for actor, here in self.env.stage.playing(role) if here[i])
        return actor.raw[i].numpy().copy()

    def put_on(self, i):
        """Lay environment i's object onto its plate."""
        actor = next(actor for actor, here in self.env.stage.playing("source") if here[i])
        actor.raw[i, :3] = torch.tensor(self.actor_pose("target", i)[:3]) + torch.tensor([0.0, 0.0, 0.02])
        self._apply()

    def rows(self):
        """Everything that belongs to an environment, by name: ``[E, ...]`` each."""
        env = self.env
        actors = {actor.name: actor.raw.numpy().copy() for actor in env.stage.actors}
        return {
            "poses": np.stack(list(actors.values()), axis=1),
            "qpos": env.agent.qpos.numpy().copy(),
            "source_size": env._source_size.numpy().copy(),
            "instruction": np.array(env.get_language_instruction()),
        }

    def _fetch(self):
        for actor in self.env.stage.actors:
            actor.raw[:] = actor.simulated

    def _apply(self):
        for actor in self.env.stage.actors:
            actor.simulated[:] = actor.raw

    def _contact(self, a, b):
        force = self.forces.get((a.name, b.name), torch.zeros(self.num_envs))
        return force[:, None] * torch.tensor([0.0, 0.0, 1.0])


def scripted(env_id, num_envs, root, obj_set="train"):
    """A scripted scene of a variant."""
    return ScriptedScene(env_id, num_envs, root, obj_set)
