"""What goes wrong with assets and a user can mend."""

from __future__ import annotations

from rlft.errors import RlftError


class AssetError(RlftError):
    """An asset that could not be fetched or is not what it should be. Says what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)
