"""What is checked of what a caller gives, before a simulator is touched."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from rlft.types import Array, EnvSpec
from rlft_envs.errors import EnvSetupError, check_known


def parsed(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """Plain data as an object of a dataclass, checked by its annotations; EnvSetupError says ``where`` it is wrong."""
    from pydantic import TypeAdapter, ValidationError

    check_known(where, values, [entry.name for entry in fields(cls)])
    try:
        return TypeAdapter(cls).validate_json(json.dumps(dict(values)), strict=True)  # as JSON, a list is a tuple
    except ValidationError as error:
        first = error.errors()[0]
        if isinstance(cause := first.get("ctx", {}).get("error"), EnvSetupError):
            raise cause from None
        path, wrong = ".".join((where, *map(str, first["loc"]))), first["msg"].removeprefix("Value error, ")
        raise EnvSetupError(f"{path} = {first['input']!r}: {wrong}") from None


def check_env_ids(env_ids: Sequence[int], num_envs: int) -> None:
    """Raise ValueError unless the indices are distinct and exist."""
    wrong = [i for i in env_ids if not 0 <= i < num_envs]
    if wrong:
        raise ValueError(f"env_ids {wrong} do not exist; allowed: 0..{num_envs - 1}")
    if len(set(env_ids)) != len(env_ids):
        raise ValueError(f"env_ids {list(env_ids)} repeat; each environment can be named once")


def check_reset(
    env_ids: Sequence[int], seeds: Sequence[int], configuration_ids: Sequence[int] | None, spec: EnvSpec
) -> list[int | None]:
    """Return the configuration ids, or None for each environment.

    Raise ValueError unless there is one valid seed, and one valid episode id, per distinct, existing environment.
    """
    check_env_ids(env_ids, spec.num_envs)
    if len(env_ids) != len(seeds):
        raise ValueError(f"{len(env_ids)} env_ids but {len(seeds)} seeds; one seed per environment is needed")
    wrong = [s for s in seeds if not 0 <= s < 2**32]
    if wrong:
        raise ValueError(f"seeds {wrong} are out of range; allowed: 0..2**32-1")
    if configuration_ids is None:
        return [None] * len(seeds)
    if spec.num_configurations == 0:
        raise ValueError(f"{spec.env_id} has no numbered configurations; configuration_ids must be None")
    if len(configuration_ids) != len(seeds):
        both = f"{len(seeds)} seeds but {len(configuration_ids)} configuration_ids"
        raise ValueError(f"{both}; each environment needs one")
    wrong = [i for i in configuration_ids if not 0 <= i < spec.num_configurations]
    if wrong:
        raise ValueError(f"configuration_ids {wrong} do not exist; {spec.env_id} has 0..{spec.num_configurations - 1}")
    return [int(i) for i in configuration_ids]


def check_actions(actions: Array, spec: EnvSpec) -> None:
    """Raise ValueError unless actions are finite and of shape ``[E, A >= 1, d]``; names the first that is not."""
    shape = tuple(actions.shape)
    if len(shape) != 3 or shape[::2] != (spec.num_envs, spec.act_dim) or shape[1] < 1:
        raise ValueError(f"actions have shape {shape}; [E={spec.num_envs}, A>=1, d={spec.act_dim}] is needed")
    finite = abs(actions) < math.inf  # of a tensor as of an array; a NaN compares as false
    if not finite.all():
        env, step, dim = np.argwhere(np.logical_not(finite.tolist()))[0]
        where = f"action of environment {env}, step {step} of the chunk, dimension {dim}"
        raise ValueError(f"{where} is {actions[env, step, dim]}")
