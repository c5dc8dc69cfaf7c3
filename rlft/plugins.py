"""The four seams: simulators, tasks, policies and objectives, found by name. Standard library only.

A piece of one's own is an object in a module of one's own. A settings file names it in one of two ways:

- by the name under which its package declares it (``[project.entry-points."rlft.simulators"]`` and so on), or
- as ``package.module:Attribute``, with nothing declared; the package has to be importable.

Names are data: nothing is imported before :func:`load`.
"""

import importlib
from functools import cache
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Any

from rlft.errors import ConfigError, did_you_mean

BUILT_IN: dict[str, dict[str, str]] = {
    "simulators": {
        "gymnasium": "rlft_envs.gym.simulator:Gymnasium",
        "lerobot": "rlft_envs.gym.lerobot:LeRobot",
        "maniskill": "rlft_envs.maniskill.simulator:ManiSkill",
        "toy": "rlft_envs.toy:Toy",
    },
    "tasks": {
        "aloha": "rlft_tasks.aloha:TASKS",
        "panda": "rlft_tasks.panda:TASKS",
        "put_on_plate": "rlft_tasks.put_on_plate:TASKS",
        "toy": "rlft_tasks.toy:TASKS",
        "widowx": "rlft_tasks.widowx:TASKS",
    },
    "policies": {
        "pi0": "rlft.policy.pi0.family:PI0",
        "pi05": "rlft.policy.pi0.family:PI05",
        "small": "rlft.policy.pi0.family:SMALL",
        "small_pi05": "rlft.policy.pi0.family:SMALL_PI05",
    },
    "objectives": {"grpo": "rlft.objective.grpo:GRPO", "ppo": "rlft.objective.ppo:PPO"},
}
"""Kind -> name -> ``module:attribute`` of what comes with this package."""


@cache
def _found(kind: str) -> dict[str, str]:
    installed = {point.name: point.value for point in entry_points(group=f"rlft.{kind}")}
    return installed | BUILT_IN[kind]  # what comes with the package cannot be replaced by what happens to be installed


def names(kind: str) -> tuple[str, ...]:
    """The names that can be given for a kind of :data:`BUILT_IN`, those that come with the package first."""
    return tuple(dict.fromkeys((*BUILT_IN[kind], *sorted(_found(kind)))))


def resolve(kind: str, name: str, setting: str = "") -> str:
    """Where the object behind a declared name, or ``module:attribute`` itself, is; nothing is imported.

    Raises:
        ConfigError: no such name; says which there are.
    """
    if ":" in name:
        return name
    found = _found(kind)
    if name not in found:
        allowed = f"one of {', '.join(names(kind))}, or package.module:Name for one of your own"
        raise ConfigError(f"{setting or kind} = {name!r}: must be {allowed}{did_you_mean(name, found)}")
    return found[name]


def load(kind: str, name: str, setting: str = "") -> Any:
    """Import the object behind a name.

    Raises:
        ConfigError: no such name, module or attribute.
    """
    return imported(resolve(kind, name, setting), setting or kind)


def imported(reference: str, setting: str) -> Any:
    """The object at ``module:attribute``.

    Raises:
        ConfigError: there is no such module or attribute, or the module cannot be imported.
    """
    module, _, attribute = reference.partition(":")
    try:
        found = importlib.import_module(module)
        return attrgetter(attribute)(found) if attribute else found
    except ImportError as error:
        remedy = "it has to be installed in this environment, or lie on PYTHONPATH"
        raise ConfigError(f"{setting} = {reference!r}: {module} cannot be imported ({error}); {remedy}") from error
    except AttributeError as error:
        raise ConfigError(f"{setting} = {reference!r}: {error}") from error
