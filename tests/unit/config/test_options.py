"""Settings that a plug-in declares itself, in the ways that it may declare them."""

import dataclasses
import sys
import types
from typing import Annotated

import pydantic.dataclasses
import pytest
from pydantic import BaseModel, Field, field_validator

from rlft.config.load import changed, check_options, load
from rlft.config.messages import typed
from rlft.errors import ConfigError


@dataclasses.dataclass
class Plain:
    groups: int = 4
    clip: Annotated[float, Field(gt=0, le=1)] = 0.2
    names: list[str] = dataclasses.field(default_factory=list)
    bounds: tuple[float, ...] = ()


@pydantic.dataclasses.dataclass
class Nested:
    inner: Plain = dataclasses.field(default_factory=Plain)


class Model(BaseModel):
    even: int

    @field_validator("even")
    @classmethod
    def is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


@pytest.mark.parametrize(
    ("cls", "mapping", "problems"),
    [
        (Plain, {"grups": 3}, ["env.options.grups: no such setting; did you mean env.options.groups?"]),
        (Plain, {"clip": 2, "names": "a"}, ["env.options.clip = 2: must be > 0 and <= 1", "expected list of texts"]),
        (Plain, {"bounds": -1.0}, ["env.options.bounds = -1.0: expected list of numbers"]),
        (Plain, {"groups": None}, ["env.options.groups = null: expected whole number; this setting has no null"]),
        (Plain, {"names": ["None"]}, ["env.options.names.0 = 'None': this is text"]),
        (Nested, {"inner": {"clip": 0, "no": 1}}, ["inner.no: no such setting", "env.options.inner.clip = 0: must be"]),
        (Model, {}, ["env.options.even: must be given"]),
        (Model, {"even": 3, "odd": 1}, ["env.options.odd: no such setting", "env.options.even = 3: must be even"]),
    ],
)
def test_options_are_checked_as_settings_are(cls, mapping, problems):
    with pytest.raises(ConfigError) as caught:
        typed(cls, mapping, "env.options")
    assert len(caught.value.problems) == len(problems)
    assert all(text in told for text, told in zip(problems, caught.value.problems, strict=True))


def test_options_become_an_object_of_the_plug_ins_own_class():
    assert typed(Plain, {"groups": 2, "clip": 0.5}, "env.options") == Plain(2, 0.5)
    assert typed(Model, {"even": 2}, "model.options").even == 2


def test_a_plug_in_by_its_place_is_imported_for_options_alone_and_one_without_any_takes_none(monkeypatch):
    words = ["env.simulator=their_sims:Sim", "env.options={groups: 7}"]
    module = types.ModuleType("their_sims")
    module.Sim = type("Sim", (), {"Options": Plain})
    assert load("train_rl", words[:1]).env.simulator == "their_sims:Sim"  # nothing is imported
    monkeypatch.setitem(sys.modules, "their_sims", module)
    assert load("train_rl", words).env.options == {"groups": 7}
    with pytest.raises(ConfigError, match=r"env.options.groups = 'x': expected whole number"):
        load("train_rl", [words[0], "env.options.groups=x"])
    del module.Sim.Options
    with pytest.raises(ConfigError, match=r"env.options = {'groups': 7}: their_sims:Sim declares none"):
        check_options(changed(load("train_rl", words[:1]), {"env.options": {"groups": 7}}))
