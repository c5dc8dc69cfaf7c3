"""Where the simulator assets are that some tests need."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def find_assets() -> Path | None:
    """RLFT_ASSETS, else shared/assets beside the repository."""
    named = os.environ.get("RLFT_ASSETS")
    path = Path(named) if named else ROOT.parent / "shared" / "assets"
    return path if path.is_dir() else None


def assets_root() -> Path:
    """The directory, or the test is skipped."""
    path = find_assets()
    if path is None:
        pytest.skip("needs simulator assets: set RLFT_ASSETS, or run python -m rlft assets")
    return path
