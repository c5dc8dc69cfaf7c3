"""What the learner and a worker process say to each other.

Messages are JSON texts over a socket pair, one per chunk and worker; images, states, actions and rewards lie in shared
memory. Where a message needs raw bytes (the frames of a video), they follow its text. JSON: reading it runs no code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from rlft.types import CameraSettings, EnvSettings, EnvSpec, RewardSettings
from rlft_envs.errors import EnvSetupError

END_OF_TEXT = b"\0"  # JSON escapes it, so that none is in the text


def send(connection: Connection, message: Mapping[str, Any], payload: bytes = b"") -> None:
    """Send one message, and raw bytes with it."""
    connection.send_bytes(json.dumps(message).encode() + END_OF_TEXT + payload)


def receive(connection: Connection) -> tuple[dict[str, Any], bytes]:
    """Receive one message and its raw bytes; EOFError where the other end is gone."""
    text, _, payload = connection.recv_bytes().partition(END_OF_TEXT)
    return json.loads(text), payload


def pack_settings(settings: EnvSettings) -> dict[str, Any]:
    """Settings as plain data; EnvSetupError where ``make_kwargs`` holds something that is not."""
    plain = dataclasses.asdict(settings)
    try:
        json.dumps(plain)
    except TypeError as error:
        remedy = "use numbers, texts, lists and mappings, or sim.num_workers=0"
        what = f"env.make_kwargs = {settings.make_kwargs!r}"
        raise EnvSetupError(f"{what} cannot be sent to a worker process: {error}; {remedy}") from None
    return plain


def unpack_settings(plain: Mapping[str, Any]) -> EnvSettings:
    """The inverse of :func:`pack_settings`."""
    return EnvSettings(**{**_tuples(plain), "reward": RewardSettings(**plain["reward"])})


def unpack_spec(plain: Mapping[str, Any]) -> EnvSpec:
    """A specification that was sent as a dictionary."""
    return EnvSpec(**_tuples(plain))


def _tuples(plain: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists only; frozen dataclasses hold tuples, and cameras."""
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    if "cameras" in found:
        found["cameras"] = tuple(CameraSettings(**_tuples(camera)) for camera in found["cameras"])
    return found
