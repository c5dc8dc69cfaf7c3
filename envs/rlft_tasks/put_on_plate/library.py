"""The family's meshes and images on disk. Standard library only."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlft_envs.assets import download_command
from rlft_envs.errors import EnvSetupError

FOLDER = "put_on_plate"


@dataclass(frozen=True)
class Model:
    """A thing that can be put, or put onto."""

    key: str  # its folder, for instance `001_carrot_simpler`
    name: str  # what an instruction calls it
    size: tuple[float, ...]  # three edges of its box in its own frame, metres
    density: float  # kg/m³
    folder: Path  # where its meshes are

    @property
    def collision(self) -> Path:
        """The mesh that physics sees; :func:`rlft_envs.assets.visual_mesh` gives the one that cameras see."""
        return self.folder / "collision.obj"


@dataclass(frozen=True)
class Table:
    """A photograph of an empty table, and the texture that vision tests blend in."""

    key: str  # the photograph's file name
    name: str  # what it shows
    image: Path  # its file, 640 x 480
    texture: Path  # the texture's file
    mix: float  # how strongly that texture may cover, 0..1


@dataclass(frozen=True)
class Library:
    """Everything that can be shown, in the published order."""

    objects: tuple[Model, ...]
    plates: tuple[Model, ...]
    tables: tuple[Table, ...]


@lru_cache
def load_library(assets_root: str | Path | None) -> Library:
    """Read the three lists under ``<assets_root>/put_on_plate``; EnvSetupError where one, or a file, is missing."""
    if assets_root is None:
        wrong = f"the {FOLDER} assets are needed, and neither assets.root nor RLFT_ASSETS is set"
        raise EnvSetupError(f"{wrong}; get them with: {download_command(None)}")
    root = Path(assets_root) / FOLDER
    folder = root / "more_table"
    tables = tuple(
        Table(key, entry["name"], folder / "imgs" / key, folder / "textures" / entry["texture"], entry["mix"])
        for key, entry in _read(folder).items()
    )
    library = Library(_models(root / "more_carrot"), _models(root / "more_plate"), tables)
    models = (*library.objects, *library.plates)
    needed = [model.collision for model in models] + [path for t in library.tables for path in (t.image, t.texture)]
    if missing := [str(path) for path in needed if not path.is_file()]:
        wrong = f"{len(missing)} files of the {FOLDER} assets are missing, the first is {missing[0]}"
        raise EnvSetupError(f"{wrong}; get them with: {download_command(assets_root)}")
    return library


def _models(folder: Path) -> tuple[Model, ...]:
    found = []
    for key, entry in _read(folder).items():
        size = tuple(high - low for low, high in zip(entry["bbox"]["min"], entry["bbox"]["max"]))
        found.append(Model(key, entry["name"], size, float(entry["density"]), folder / key))
    return tuple(found)


def _read(folder: Path) -> dict[str, Any]:
    if not (path := folder / "model_db.json").is_file():
        command = download_command(folder.parents[1])
        raise EnvSetupError(f"{path} is missing (assets.root, RLFT_ASSETS); download the assets with: {command}")
    return json.loads(path.read_text())
