"""Numbered configurations of a task, as plain data: how many, and what each shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rlft.types import EnvSettings
from rlft_tasks.put_on_plate.variants import PREFIX

Labels = Callable[[int], Mapping[str, str]]


def numbered(settings: EnvSettings) -> tuple[Mapping[str, int], Labels] | None:
    """The configurations that ``reset(..., episode_ids)`` addresses; no simulator is loaded.

    Returns:
        the digits of their mixed-radix numbers (name -> how many values, the slowest first), and the labels of a number
        (``object``, ``plate``, ``table``, ``variant``; the same keys for all); None where the task has no numbers.
    """
    if settings.simulator == "toy":
        from rlft_envs import toy

        return toy.numbered(settings)
    if not settings.env_id.startswith(PREFIX):
        return None
    from rlft_envs.assets import folder_of
    from rlft_tasks.put_on_plate.configurations import numbered as configurations

    root = folder_of(settings, "put_on_plate").parent
    options = {"obj_set": "train", **settings.make_kwargs}
    found = configurations(settings.env_id, str(options["obj_set"]), root)
    return found.numbering.sizes, found.labels
