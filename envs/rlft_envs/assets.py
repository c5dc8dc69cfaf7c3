"""Where a simulator finds assets that do not come with its package. Standard library only."""

import os
import sys
from pathlib import Path

from rlft.errors import command
from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError

MANISKILL = "maniskill"
VISUALS = ("textured.dae", "textured.glb", "textured.obj", "collision.obj")
"""What cameras see of a thing, the best first: no original is an .obj; one of those stands in for what is not there."""


def download_command(root: str | Path | None) -> str:
    """What to type to get the assets to where they are looked for; None: to the default place."""
    return command("assets", "--accept-licences", *([] if root is None else ["--root", str(root)]))


def own_download(settings: EnvSettings) -> str:
    """The command for a task whose assets our script fetches."""
    return download_command(settings.assets_root)


def point_maniskill_at(settings: EnvSettings) -> None:
    """Let ManiSkill look under ``<assets root>/maniskill``, unless MS_ASSET_DIR names a place of the user's own.

    ManiSkill reads that variable when it is imported, so this comes before, or raises EnvSetupError.
    """
    if settings.assets_root is None:
        return
    folder = Path(settings.assets_root) / MANISKILL
    named = os.environ.setdefault("MS_ASSET_DIR", str(folder))
    if "mani_skill" in sys.modules and folder.is_dir() and named == str(folder):
        found = Path(sys.modules["mani_skill"].ASSET_DIR)
        if found != folder / "data":
            wrong = f"assets.root = {settings.assets_root!r}, but ManiSkill was loaded with {found} before"
            raise EnvSetupError(f"{wrong}; give the setting before the first environment is built")


def visual_mesh(folder: Path) -> Path:
    """The mesh that cameras see of the thing in a folder, which holds at least its ``collision.obj``."""
    return next((path for path in (folder / name for name in VISUALS) if path.is_file()), folder / VISUALS[-1])
