"""PutOnPlateInScene25's scene class with N environments whose physics is a scripted buffer and scripted contacts.

Everything but physics is real: the class's own reset, the GPU backend's stage, success terms. It shows that what
belongs to an environment is read and written at its index, without a GPU. Actors have nothing but what the batched
simulation indexes them by; a call to one of them fails.
"""

from types import SimpleNamespace

import numpy as np
import torch

CPU = torch.device("cpu")
TIMESTEP = 1 / 500


class ScriptedPhysics:
    """SAPIEN's GPU system: one buffer of body states, copied from and to the simulation when asked; contact queries.

    Bodies are numbered as they are built, one environment after another from the last to the first, so that rows
    confused with environments, or things, show.
    """

    timestep = TIMESTEP

    def __init__(self, scene):
        self._scene, self._bodies = scene, []
        self.raw = self.simulated = torch.zeros(0, 13)  # what is read and written, and what the simulation has
        self.counts = {"buffer": 0, "created": 0, "asked": 0}  # the buffer handed out; queries made and asked
        self.cuda_rigid_body_data = SimpleNamespace(torch=self._buffer)

    def body(self, name, env, pose):
        """Add a body."""
        self._bodies.append(SimpleNamespace(name=name, env=env, row=len(self._bodies)))
        state = torch.tensor([[*pose.p, *pose.q, *[0.0] * 6]])
        self.raw, self.simulated = torch.cat([self.raw, state]), torch.cat([self.simulated, state])
        return self._bodies[-1]

    def gpu_create_contact_pair_impulse_query(self, pairs):
        self.counts["created"] += 1
        assert all(a.env == b.env for a, b in pairs)
        assert len({(a.row, b.row) for a, b in pairs}) == len(pairs)
        query = SimpleNamespace(pairs=pairs, impulses=torch.full((len(pairs), 3), torch.nan))
        query.cuda_impulses = SimpleNamespace(torch=lambda: query.impulses)
        return query

    def gpu_query_contact_pair_impulses(self, query):
        self.counts["asked"] += 1
        found = self._scene.contacts()
        query.impulses.zero_()
        for k, (a, b) in enumerate(query.pairs):
            if (a.name, b.name) in found:
                query.impulses[k] = found[a.name, b.name][a.env] * self.timestep

    def gpu_apply_rigid_dynamic_data(self):
        self.simulated[:] = self.raw

    def fetch(self):
        self.raw[:] = self.simulated

    def _buffer(self):
        self.counts["buffer"] += 1
        return self.raw


class ScriptedBuilder:
    """Builds N scripted bodies."""

    def __init__(self, scene):
        self._scene, self.initial_pose = scene, None

    def __getattr__(self, name):
        if not name.startswith("add_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self

    def build(self, name):
        scene = self._scene
        bodies = [scene.physics.body(name, i, self.initial_pose) for i in reversed(range(scene.num_envs))][::-1]
        return SimpleNamespace(name=name, _bodies=bodies, _body_data_index=torch.tensor([body.row for body in bodies]))

    build_static = build


class ScriptedRobot:
    """Joint positions, written in ascending order of the environments being reset; fingers that open along y."""

    def __init__(self, scene):
        from mani_skill.utils.structs import Pose

        self._scene = scene
        self.qpos = torch.zeros(scene.num_envs, 8)
        self.robot = SimpleNamespace(set_pose=lambda pose: None)
        for k, finger in enumerate(FINGERS):
            bodies = [SimpleNamespace(name=finger, env=i, row=-1 - k) for i in range(scene.num_envs)]
            turned = Pose.create(torch.tensor([[0.0, 0, 0, 1, 0, 0, 0]] * scene.num_envs))
            setattr(self, f"{finger}_link", SimpleNamespace(_bodies=bodies, pose=turned))

    def reset(self, init_qpos):
        self.qpos[self._scene.reset_mask] = init_qpos


FINGERS = ("finger1", "finger2")
OPENING = {"finger1": 1.0, "finger2": -1.0}  # along y


class ScriptedScene:
    """Drives one :class:`rlft_tasks.put_on_plate.scene.PutOnPlate`, its ``env``."""

    def __init__(self, env_id, num_envs, root, obj_set):
        from rlft_tasks.put_on_plate.scene import PutOnPlate
        from rlft_tasks.put_on_plate.stage import GpuStage

        count = num_envs

        class Scripted(PutOnPlate):
            num_envs, device, gpu_sim_enabled = count, CPU, True

            def __init__(self):
                self.env_id, self._assets_root = env_id, root
                self._first_set = self.configurations(obj_set)
                self.variant = self._first_set.numbering.variant

            def _set_scene_config(self):
                pass

        # In every environment: (object, plate) -> contact force, newtons; object -> whether the fingers hold it.
        self.num_envs, self.forces, self.held = num_envs, {}, {}
        self.physics = ScriptedPhysics(self)
        self.reset_mask = torch.zeros(num_envs, dtype=torch.bool)
        self.env = Scripted()
        self.env.scene = SimpleNamespace(
            create_actor_builder=lambda: ScriptedBuilder(self),
            can_render=lambda: False,
            parallel_in_single_scene=False,
            _gpu_fetch_all=self.physics.fetch,
            px=self.physics,
        )
        self.env.agent = ScriptedRobot(self)
        self.env._elapsed_steps = torch.zeros(num_envs, dtype=torch.int32)
        self.env.stage = GpuStage(self.env, *self.env._first_set.models())
        self.env._allocate()

    def start(self, ids, seeds, numbers=None):
        """A reset of the environments named, as ManiSkill's would call it."""
        idx = torch.tensor(ids)
        self.reset_mask[:] = False
        self.reset_mask[idx] = True
        self.env._episode_seed = np.array(seeds)
        self.env._elapsed_steps[idx] = 0
        self.env._initialize_episode(idx, {} if numbers is None else {"episode_id": torch.tensor(numbers)})
        self.physics.gpu_apply_rigid_dynamic_data()

    def step(self, drift=0.0):
        """A control step whose physics moves everything along x, metres."""
        self.physics.simulated[:, 0] += drift
        self.env._after_control_step()
        self.physics.fetch()
        self.env._elapsed_steps += 1

    def actor_pose(self, role, i):
        """The pose of whoever plays a role in environment i, ``[7]``."""
        return self.physics.raw[self._row(role, i), :7].numpy().copy()

    def put_on(self, i):
        """Lay environment i's object onto its plate."""
        on_top = torch.tensor(self.actor_pose("target", i)[:3]) + torch.tensor([0.0, 0.0, 0.02])
        self.physics.raw[self._row("source", i), :3] = on_top
        self.physics.gpu_apply_rigid_dynamic_data()

    def rows(self):
        """Everything that belongs to an environment, by name: ``[E, ...]`` each."""
        env = self.env
        return {
            "poses": np.stack([self.physics.raw[actor._body_data_index].numpy() for actor in env.stage.actors], axis=1),
            "roles": env.stage.roles.T.numpy().copy(),
            "qpos": env.agent.qpos.numpy().copy(),
            "source_size": env._source_size.numpy().copy(),
            "instruction": np.array(env.get_language_instruction()),
        }

    def contacts(self):
        """(name, name) -> force of the second on the first, float ``[E, 3]``, newtons."""
        found = {pair: force[:, None] * torch.tensor([0.0, 0.0, 1.0]) for pair, force in self.forces.items()}
        for name, held in self.held.items():
            for finger in FINGERS:
                found[finger, name] = held[:, None] * torch.tensor([0.0, OPENING[finger], 0.0])
        return found

    def _row(self, role, i):
        key = self.env.running[i].things[role].model.key
        return next(actor for actor in self.env.stage.actors if actor.name == key)._body_data_index[i]


def scripted(env_id, num_envs, root, obj_set="train"):
    """A scripted scene of a variant."""
    return ScriptedScene(env_id, num_envs, root, obj_set)
