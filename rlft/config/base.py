"""What a section of the schema is made of. Types are strict: text is no number, and a number no text."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, Strict
from pydantic_core import PydanticCustomError, core_schema

from rlft import plugins
from rlft.errors import RlftError

MUST_BE_GIVEN = "???"  # OmegaConf's mark; loading asks for every setting that still has it
SECTION = ConfigDict(extra="forbid", allow_inf_nan=False)


def opt(default: Any, doc: str | None = None, **limits: Any) -> Any:
    """Declare a setting: its default, copied per instance, and its meaning in one sentence with the unit.

    A section says its meaning in the docstring of its class. Limits are pydantic's ``ge``, ``gt``, ``le``, ``lt`` of
    numbers, ``min_length`` and ``max_length`` of lists.
    """
    return Field(default, description=doc, **limits)


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "a whole number")
    return value


Int = Annotated[int, BeforeValidator(_number)]  # a whole float too: YAML and the command line read 1e3 as one
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]


@dataclass(frozen=True)
class PluginName:
    """Marks a setting that names a plug-in of a kind (:mod:`rlft.plugins`)."""

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Check the name; nothing is imported for it."""
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, name: str) -> str:
        try:
            if name != MUST_BE_GIVEN:
                plugins.resolve(self.kind, name)
        except RlftError as error:
            raise PydanticCustomError("plugin_name", "unknown") from error
        return name
