"""What the learner and a worker process say to each other.

Messages are JSON texts over a socket pair, one per chunk; pictures and states lie in shared memory and never travel.
JSON because the two ends may be different interpreters with different numpy versions, and because reading it runs no
code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from rlft.types import CameraSettings, EnvSettings, EnvSpec, RewardSettings
from rlft_envs.errors import EnvSetupError


def send(connection: Connection, message: Mapping[str, Any]) -> None:
    """Send one message."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """Receive one message; EOFError where the other end is gone."""
    return parse(connection.recv_bytes())


def parse(message: bytes) -> dict[str, Any]:
    """What :func:`send` sent."""
    return json.loads(message)


def pack_settings(settings: EnvSettings) -> dict[str, Any]:
    """Settings as plain data.

    Raises:
        EnvSetupError: ``make_kwargs`` holds something that is not plain data.
    """
    plain = dataclasses.asdict(settings)
    try:
        json.dumps(plain)
    except TypeError as error:
        raise EnvSetupError(
            f"env.make_kwargs = {settings.make_kwargs!r} cannot be sent to a worker process: {error}; "
            "use numbers, texts, lists and mappings, or sim.num_workers=0"
        ) from None
    return plain


def unpack_settings(plain: Mapping[str, Any]) -> EnvSettings:
    """The inverse of :func:`pack_settings`."""
    return EnvSettings(
        **{
            **plain,
            "cameras": _cameras(plain["cameras"]),
            "state_terms": tuple(plain["state_terms"]),
            "reward": RewardSettings(**plain["reward"]),
        }
    )


def pack_spec(spec: EnvSpec) -> dict[str, Any]:
    """A specification as plain data."""
    return dataclasses.asdict(spec)


def unpack_spec(plain: Mapping[str, Any]) -> EnvSpec:
    """The inverse of :func:`pack_spec`."""
    bounds = {name: tuple(plain[name]) for name in ("action_low", "action_high")}
    return EnvSpec(**{**plain, **bounds, "cameras": _cameras(plain["cameras"])})


def _cameras(plain: list[dict[str, Any]]) -> tuple[CameraSettings, ...]:
    def frozen(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return tuple(CameraSettings(**{name: frozen(value) for name, value in camera.items()}) for camera in plain)
