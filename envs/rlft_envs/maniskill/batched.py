"""ManiSkill's GPU backend: all environments in one batched simulation, torch tensors on ``sim.device``.

**GPU physics itself has not been run with this class.** It is written to the API of mani_skill 3.0.1 and passes the
VecEnv conformance suite on a stand-in that has the same batched API over ManiSkill's CPU physics, and whose own random
stream differs from the CPU's as a GPU's does (tests/contract/batched_maniskill.py); nothing else about it was measured.

Four properties of the batched simulation shape the code:

- Every step moves every environment. One that ended inside a chunk repeats its last action with the others; at the
  chunk's end it is put back to the state in which it ended, so that one render shows true final observations.
- A partial reset of 3.0.1 restores its mask before it resets the controllers, so that controllers with a moving target
  (``*_target_delta_*``) lose it in environments that were not reset. Targets are saved and put back.
- A reset of several environments draws for all of them from one stream, on the simulation's device. The task is
  subclassed so that each draws from its own (:mod:`rlft_envs.maniskill.row_draws`): one reset serves all, and a seed
  names the start of an episode, the same one as with CPU physics. Physics from there on is the GPU's own, and geometry
  that a task draws when it is built belongs to the slot.
- A buffer of PhysX that is too small is reported on file descriptor 2 and nowhere else
  (:mod:`rlft_envs.maniskill.gpu_errors`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from rlft.types import Array, ChunkStep, EnvSettings, Observation, map_rows
from rlft_envs.arrays import FLAGS
from rlft_envs.checks import check_actions, check_env_ids, check_reset
from rlft_envs.maniskill.devices import on_gpu
from rlft_envs.maniskill.env import describe
from rlft_envs.maniskill.gpu_errors import PhysxWatch
from rlft_envs.maniskill.reading import read_privileged, read_state, render_cameras, render_human_view, task_metrics
from rlft_envs.maniskill.setup import build_base_env, instructions
from rlft_envs.rewards import step_reward


class ManiSkillGpuVecEnv:
    """E environments in one GPU simulation; tests ``build`` a stand-in."""

    def __init__(self, settings: EnvSettings, build: Callable[[EnvSettings], Any] = build_base_env) -> None:
        self._settings = settings
        self._watch = PhysxWatch()
        with self._watch, on_gpu(torch.device(settings.sim_device)):
            self._env = build(settings)
        self._watch.sizes = self._env.sim_config.gpu_memory_config.dict()
        self.spec = describe(self._env, settings)
        self._task = instructions(self._env, settings)
        E, device = settings.num_envs, self._env.device
        self._unstarted = set(range(E))
        self._elapsed = torch.zeros(E, dtype=torch.int64, device=device)
        self._dense = torch.zeros(E, device=device)
        self._last_action = torch.zeros(E, self.spec.act_dim, device=device)
        self._final_state = map_rows(torch.clone, self._simulation_state())
        flags, executed = torch.zeros(5, E, dtype=torch.bool, device=device), torch.zeros_like(self._elapsed)
        with self._simulator():
            self._now = ChunkStep(self._observe(), torch.zeros(E, 0, device=device), executed, *flags)
        self._frames: dict[int, list[np.ndarray]] = {}
        self._closed = False

    def reset(
        self, env_ids: Sequence[int], seeds: Sequence[int], configuration_ids: Sequence[int] | None = None
    ) -> Observation:
        """See :meth:`rlft.types.VecEnv.reset`. However many are reset, the simulator resets once."""
        numbers = check_reset(env_ids, seeds, configuration_ids, self.spec)
        ids = torch.as_tensor(list(env_ids), dtype=torch.int64, device=self._env.device)
        if len(ids) == 0:
            return _take(self._now.obs, ids)
        with self._simulator():
            # ManiSkill writes rows in ascending order of the environments, whatever the order of env_idx.
            each = sorted(zip(env_ids, seeds, numbers), key=lambda one: one[0])
            known = configuration_ids is not None
            options = {"episode_id": torch.tensor([number for _, _, number in each])} if known else {}
            info = self._reset(ids.sort().values, [int(seed) for _, seed, _ in each], options)
            self._task = self._now.obs.task = instructions(self._env, self._settings)
            flags = (getattr(self._now, name) for name in FLAGS)
            for values in (*flags, *self._now.metrics.values(), self._elapsed, self._last_action):
                values[ids] = 0
            self._unstarted.difference_update(env_ids)
            rest = torch.zeros_like(self._last_action)
            self._dense[ids] = self._env.get_reward(obs={}, action=rest, info=info).float()[ids]
            self._refresh(ids)
        return _take(self._now.obs, ids)

    def step_chunk(self, actions: Array) -> ChunkStep:
        """See :meth:`rlft.types.VecEnv.step_chunk`. Actions may be a numpy array or a tensor on any device.

        The host waits for the GPU once per control step, to learn who ended and whether anything still runs.
        """
        chunk = torch.as_tensor(actions, dtype=torch.float32, device=self._env.device)
        check_actions(chunk, self.spec)
        if self._unstarted:
            raise RuntimeError(f"environments {sorted(self._unstarted)} are stepped before a reset")
        E, A = chunk.shape[:2]
        now = self._now
        now.rewards, now.n_executed = torch.zeros(E, A, device=chunk.device), torch.zeros_like(self._elapsed)
        stepped = running = ~now.ended
        any_runs = bool(running.any())
        with self._simulator():
            for j in range(A):
                if not any_runs:
                    break
                now.rewards[:, j] = self._step(chunk[:, j], running)
                now.n_executed += running
                just_ended = running & now.ended
                running = running & ~just_ended
                any_ended, any_runs = torch.stack([just_ended.any(), running.any()]).tolist()
                if any_ended:
                    ids = just_ended.nonzero()[:, 0]
                    _put(self._final_state, ids, _take(self._simulation_state(), ids))
            self._restore_ended()
            self._refresh(stepped.nonzero()[:, 0])
        return _take(now, torch.arange(E, device=chunk.device))

    def record(self, env_ids: Sequence[int]) -> None:
        """See :meth:`rlft.types.VecEnv.record`."""
        check_env_ids(env_ids, self.spec.num_envs)
        if env_ids:
            with self._simulator():
                render_human_view(self._env)  # fails here rather than inside an episode
        self._frames = {env_id: self._frames.get(env_id, []) for env_id in env_ids}

    def take_frames(self, env_id: int) -> np.ndarray:
        """See :meth:`rlft.types.VecEnv.take_frames`."""
        check_env_ids([env_id], self.spec.num_envs)
        if not self._frames.get(env_id):
            return np.zeros((0, 0, 0, 3), np.uint8)
        frames, self._frames[env_id] = self._frames[env_id], []
        return np.stack(frames)

    def close(self) -> None:
        """Free the simulation; may be called twice."""
        if not self._closed:
            self._closed = True
            self._env.close()

    @contextmanager
    def _simulator(self) -> Iterator[None]:
        """Around calls of the simulator: its GPU is torch's current one, and PhysX's complaints stop the run."""
        with self._watch, on_gpu(self._env.device):
            yield

    def _reset(self, ids: torch.Tensor, seeds: list[int], options: dict[str, Any]) -> dict[str, Any]:
        """Reset environments (ascending), and undo what that does to the controllers of others; the info of all."""
        before = map_rows(torch.clone, self._env.agent.get_controller_state())
        _, info = self._env.reset(seed=seeds, options={"env_idx": ids, **options})
        _put(before, ids, _take(self._env.agent.get_controller_state(), ids))
        self._env.agent.set_controller_state(before)
        return info

    def _step(self, action: torch.Tensor, running: torch.Tensor) -> torch.Tensor:
        """One simulation step; returns the rewards ``[E]``, 0 where not running, and updates every flag."""
        self._last_action = torch.where(running[:, None], action, self._last_action)
        _, dense, _, _, info = self._env.step(self._last_action)
        dense = dense.float()
        success, fail = (info.get(name, torch.zeros_like(running)).bool() for name in ("success", "fail"))
        now, settings = self._now, self._settings
        reward = step_reward(settings.reward, dense, self._dense, (success & ~now.success).float())
        now.invalid |= running & ~torch.isfinite(reward)
        self._dense = torch.where(running, dense, self._dense)
        self._elapsed += running
        now.success |= running & success
        now.success_now = torch.where(running, success, now.success_now)
        now.terminated |= running & (fail | success if settings.episode_ends_on_success else fail)
        now.truncated |= running & ~now.terminated & (self._elapsed >= settings.max_episode_steps)
        for name, value in task_metrics(info).items():
            kept = now.metrics.setdefault(name, torch.zeros_like(self._dense))
            now.metrics[name] = torch.where(running, value, kept)
        self._record(running)
        return torch.where(running & ~now.invalid, reward, torch.zeros_like(reward))

    def _record(self, running: torch.Tensor) -> None:
        runs = running.tolist() if self._frames else []
        recorded = [env_id for env_id in self._frames if runs[env_id]]
        if recorded:
            view = render_human_view(self._env)
            for env_id in recorded:
                self._frames[env_id].append(view[env_id].cpu().numpy())

    def _simulation_state(self) -> dict[str, Any]:
        """Poses, velocities, joints and controller targets, by kind and name: ``[E, n]`` each."""
        return {**self._env.get_state_dict(), "controller": self._env.agent.get_controller_state()}

    def _restore_ended(self) -> None:
        """Put environments whose episode is over back to the state in which it ended."""
        ids = self._now.ended.nonzero()[:, 0]
        if len(ids):
            final = _take(self._final_state, ids)
            controllers = map_rows(torch.clone, self._env.agent.get_controller_state())
            _put(controllers, ids, final["controller"])
            self._env.agent.set_controller_state(controllers)
            self._env.set_state_dict(final, ids)

    def _observe(self) -> Observation:
        images = render_cameras(self._env, [camera.name for camera in self.spec.cameras])
        privileged = read_privileged(self._env) if self._settings.privileged else None
        return Observation(images, read_state(self._env, self._settings.state_terms), self._task, privileged)

    def _refresh(self, ids: torch.Tensor) -> None:
        """Render once, and take over the rows ``ids``; a row with a NaN is zeroed and its environment invalid."""
        new, obs = self._observe(), self._now.obs
        for name, image in new.images.items():
            obs.images[name][ids] = image[ids]
        obs.state[ids] = torch.nan_to_num(new.state[ids], posinf=0.0, neginf=0.0)
        bad = ~torch.isfinite(new.state).all(dim=1)
        if new.privileged is not None and obs.privileged is not None:
            obs.privileged[ids] = torch.nan_to_num(new.privileged[ids], posinf=0.0, neginf=0.0)
            bad |= ~torch.isfinite(new.privileged).all(dim=1)
        self._now.invalid[ids] |= bad[ids]


def _take(bundle: Any, ids: torch.Tensor) -> Any:
    """A copy of the named rows of an observation or a simulation state, in their order."""
    return map_rows(lambda x: x[ids] if isinstance(x, torch.Tensor) else x[ids.tolist()], bundle)


def _put(bundle: Any, ids: torch.Tensor, rows: Any) -> None:
    """Write rows over the named ones of a simulation state, in place."""
    map_rows(lambda x, new: x.__setitem__(ids, new), bundle, rows)
