"""Where downloaded simulator assets are."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "RLFT_ASSETS"
DEFAULT = Path("~/.cache/rlft/assets")
COMMAND = ".venv/bin/python scripts/download_assets.py --accept-licences"


def assets_root(setting: str | None = None) -> Path | None:
    """The directory of downloaded assets.

    Args:
        setting: ``assets.root``; where it is None or empty, the environment variable RLFT_ASSETS is taken.

    Returns:
        an absolute path, which need not exist where somebody named it; else ``~/.cache/rlft/assets`` if that is a
        directory; else None.
    """
    named = setting or os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    default = DEFAULT.expanduser()
    return default if default.is_dir() else None


def target_root(setting: str | None = None) -> Path:
    """The directory that a download fills: :func:`assets_root`, or the default place where there is none yet."""
    return assets_root(setting) or DEFAULT.expanduser()
