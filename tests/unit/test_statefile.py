import json
import math

import pytest
import torch

from rlft.run.statefile import read_state, write_state


def roundtrip(tmp_path, state):
    write_state(tmp_path / "s", state)
    return read_state(tmp_path / "s")


def test_plain_values_keep_their_types(tmp_path):
    state = {"a": 1, "b": 0.1 + 0.2, "c": "x", "d": None, "e": True, "f": [1, (2, 3.0), []], "g": {}, "big": 2**127}
    state |= {"inf": [math.inf, -math.inf], 3: {"nested": {7: "seven"}}, (1, "t"): 5}
    state |= {"__rlft__": {"__rlft__": "tensor"}}
    back = roundtrip(tmp_path, state)
    assert back == state
    assert type(back["f"][1]) is tuple
    assert type(back["e"]) is bool


def test_nan_and_json_validity(tmp_path):
    assert math.isnan(roundtrip(tmp_path, {"x": math.nan})["x"])
    json.loads((tmp_path / "s" / "state.json").read_text(), parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_tensors_are_bit_equal(tmp_path, dtype):
    tensor = (torch.arange(12).reshape(3, 4) % 2).to(dtype)
    back = roundtrip(tmp_path, {"t": tensor, "scalar": tensor[0, 1], "empty": tensor[:0], "view": tensor.T})
    assert back["t"].dtype == dtype
    assert torch.equal(back["t"], tensor)
    assert back["scalar"].shape == ()
    assert back["empty"].shape == (0, 4)
    assert torch.equal(back["view"], tensor.T)


def test_names_that_look_alike_do_not_mix(tmp_path):
    state = {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1), "": torch.full((1,), 2.0), 0: torch.full((1,), 3.0)}
    back = roundtrip(tmp_path, state)
    assert [back["a"]["b"].item(), back["a/b"].item(), back[""].item(), back[0].item()] == [0, 1, 2, 3]


def test_shared_storage_is_saved_twice(tmp_path):
    weight = torch.arange(4.0)
    back = roundtrip(tmp_path, {"a": weight, "b": weight, "c": weight[1:]})
    assert torch.equal(back["a"], back["b"])
    assert torch.equal(back["c"], weight[1:])


def test_an_optimiser_and_a_generator_continue_exactly(tmp_path):
    def make():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1, betas=(0.8, 0.9))

    def step(layer, optimizer, generator):
        optimizer.zero_grad()
        layer(torch.randn(4, 3, generator=generator)).square().sum().backward()
        optimizer.step()

    layer, optimizer = make()
    generator = torch.Generator().manual_seed(1)
    step(layer, optimizer, generator)
    parts = {"layer": layer.state_dict(), "optimizer": optimizer.state_dict(), "rng": generator.get_state()}
    back = roundtrip(tmp_path, parts)
    step(layer, optimizer, generator)

    layer2, optimizer2 = make()
    layer2.load_state_dict(back["layer"])
    optimizer2.load_state_dict(back["optimizer"])
    generator2 = torch.Generator()
    generator2.set_state(back["rng"])
    step(layer2, optimizer2, generator2)
    assert torch.equal(layer.weight, layer2.weight)
    assert optimizer2.param_groups[0]["betas"] == (0.8, 0.9)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", lambda: None])
def test_other_types_are_refused_by_path(tmp_path, value):
    with pytest.raises(TypeError, match="training state /a/1/b: a "):
        write_state(tmp_path / "s", {"a": [0, {"b": value}]})
