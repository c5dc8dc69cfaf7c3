"""What is about a task alone, whatever simulates it; the seam for tasks of one's own.

A task of another package needs nothing declared: ``env.id="their_pkg.tasks:MyPush-v1"`` imports the module, which makes
the environment known to its simulator and may hold ``TASKS``, a tuple of :class:`Task`. A package that is to be found
without its module's name lists such a tuple under the entry point group ``rlft.tasks``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from rlft import plugins
from rlft.errors import ConfigError
from rlft.types import ConfigurationSpace, EnvSettings
from rlft_envs.errors import EnvSetupError

Hook = Callable[..., Any] | str
"""A function, or ``module:function`` for one that is imported when it is first needed: planners load much."""


@dataclass(frozen=True)
class Task:
    """One task, or a family whose members differ in their ids."""

    ids: tuple[str, ...]  # the simulator's ids that it is about; `*` stands for any text
    instruction: str = ""  # where neither the settings nor the environment itself give one
    expert: Hook | None = None  # `(SingleEnv) -> Expert`: who demonstrates the episode that it has just started
    # `(EnvSettings) -> ConfigurationSpace | None`: what `reset(..., configuration_ids)` addresses
    configurations: Hook | None = None
    check: Hook | None = None  # `(EnvSettings) -> None`: refuses settings and missing assets, before anything is built
    module: str | None = None  # imported before the id is looked up: it makes it known to its simulator
    # `(environment class, EnvSettings) -> (class, keyword arguments)`: mends what upstream lacks; with Gymnasium
    # `(environment, EnvSettings) -> environment`
    adapt: Hook | None = None
    download: Hook | None = None  # `(EnvSettings) -> str`: the command that fetches its assets
    # attributes of the environment that hold its object and its goal, where these can be varied
    movable: tuple[str, str] | None = None
    goal_follows_object: bool = True  # whether the goal is placed relative to the object

    def hook(self, name: str) -> Callable[..., Any] | None:
        """The function of a field, imported where it is named (EnvSetupError: it is not there); None for none."""
        found: Hook | None = vars(self)[name]
        try:
            return plugins.imported(found, f"{name} of the task {self.ids[0]}") if isinstance(found, str) else found
        except ConfigError as error:
            raise EnvSetupError(error.problems[0]) from error


def local_id(env_id: str) -> str:
    """The simulator's own id: what follows the module where there is one."""
    return env_id.rpartition(":")[2]


def task_of(settings: EnvSettings) -> Task:
    """The task that the settings name (EnvSetupError: its module fails); an empty one where nobody describes it."""
    module, _, own = settings.env_id.rpartition(":")
    try:
        described = getattr(plugins.imported(module, "env.id"), "TASKS", ()) if module else _declared()
    except ConfigError as error:
        raise EnvSetupError(error.problems[0]) from error
    return next((task for task in described if any(fnmatchcase(own, pattern) for pattern in task.ids)), Task(()))


def ids_with(hook: str) -> list[str]:
    """The ids, or patterns of ids, of all declared tasks that have a part, sorted."""
    return sorted(env_id for task in _declared() if vars(task)[hook] is not None for env_id in task.ids)


@cache
def _declared() -> tuple[Task, ...]:
    tables: Iterable[Iterable[Task]] = (plugins.load("tasks", name) for name in plugins.names("tasks"))
    return tuple(task for table in tables for task in table)


def expert_of(settings: EnvSettings) -> Callable[..., Any]:
    """What makes an episode's expert from its environment; EnvSetupError, with the tasks that have one, if none."""
    make = task_of(settings).hook("expert")
    if make is None:
        remedy = "name them in dataset.path, or give its Task an expert (docs/extending.md)"
        wrong = f"env.id = {settings.env_id!r} has no planner; tasks with one: {', '.join(ids_with('expert'))}"
        raise EnvSetupError(f"{wrong}. Record demonstrations elsewhere and {remedy}")
    return make


def make_expert(env: Any) -> Any:
    """The expert (:class:`rlft_envs.record.Expert`) of the episode that a :class:`SingleEnv` has just started."""
    return expert_of(env.settings)(env)


def configuration_space(settings: EnvSettings) -> ConfigurationSpace | None:
    """The configurations that ``reset(..., configuration_ids)`` addresses; None where the task has no numbers."""
    find = task_of(settings).hook("configurations")
    return None if find is None else find(settings)
