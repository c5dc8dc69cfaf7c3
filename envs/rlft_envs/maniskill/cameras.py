"""Cameras that keep their view at any resolution. Imported lazily, with ManiSkill."""

from __future__ import annotations

from typing import Any

import numpy as np
from mani_skill.sensors.camera import parse_camera_configs


def keeping_views(task: type) -> type:
    """Subclass a task so that a camera given by an intrinsic matrix sees the same at another resolution.

    ManiSkill takes the matrix as it is, in pixels: at a quarter of the resolution such a camera would see a quarter of
    the picture. A change of proportions squeezes the picture, as a resize of the full one would.
    """

    class KeepsViews(task):
        _custom_sensor_configs: dict[str, Any] | None

        def _setup_sensors(self, options: dict) -> None:
            native = {
                **parse_camera_configs(self._default_sensor_configs),
                **parse_camera_configs(self.agent._sensor_configs),
            }
            self._custom_sensor_configs = scaled_intrinsics(native, self._custom_sensor_configs or {})
            super()._setup_sensors(options)

    KeepsViews.__name__ = KeepsViews.__qualname__ = task.__name__
    return KeepsViews


def scaled_intrinsics(native: dict[str, Any], custom: dict[str, Any]) -> dict[str, Any]:
    """Add to the customised cameras the intrinsic matrix of their native one, in pixels of the new size.

    Args:
        native: camera name -> ManiSkill's CameraConfig.
        custom: camera name -> changed fields, beside fields for all cameras.
    """
    out = dict(custom)
    for name, config in native.items():
        changed = custom.get(name)
        if config.intrinsic is None or changed is None or "intrinsic" in changed:
            continue
        sx, sy = changed.get("width", config.width) / config.width, changed.get("height", config.height) / config.height
        out[name] = {**changed, "intrinsic": np.diag([sx, sy, 1.0]) @ np.asarray(config.intrinsic, dtype=np.float64)}
    return out
