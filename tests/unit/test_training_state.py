import math
import resource

import pytest
import torch

from rlft.run.checkpoint import CheckpointError, load_state, newest_valid, save


def roundtrip(tmp_path, state):
    return load_state(save(tmp_path, 1, lambda _: None, state, 1))


def test_plain_values_keep_their_types(tmp_path):
    state = {"a": 1, "b": 0.1 + 0.2, "c": "x", "d": None, "e": True, "f": [1, (2, 3.0), []], "g": {}, "big": 2**127}
    state |= {"inf": [math.inf, -math.inf], "finite": math.nan, 3: {"nested": {7: "seven"}}, (1, "t"): 5}
    back = roundtrip(tmp_path, state)
    assert math.isnan(state.pop("finite"))
    assert math.isnan(back.pop("finite"))
    assert back == state
    assert type(back["f"][1]) is tuple
    assert type(back["e"]) is bool


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_tensors_are_bit_equal(tmp_path, dtype):
    tensor = (torch.arange(12).reshape(3, 4) % 2).to(dtype)
    back = roundtrip(tmp_path, {"t": tensor, "scalar": tensor[0, 1], "empty": tensor[:0], "view": tensor.T})
    assert back["t"].dtype == dtype
    assert torch.equal(back["t"], tensor)
    assert back["scalar"].shape == ()
    assert back["empty"].shape == (0, 4)
    assert torch.equal(back["view"], tensor.T)


def test_a_view_is_saved_without_the_rest(tmp_path):
    weight = torch.arange(1e6)
    back = roundtrip(tmp_path, {"a": weight[:2], "b": weight[:2], "c": weight[1:3]})
    assert torch.equal(back["a"], back["b"])
    assert torch.equal(back["c"], weight[1:3])
    assert (tmp_path / "000001" / "state.pt").stat().st_size < 10_000


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
    with pytest.raises(TypeError, match=r"training_state\.a\[1\]\.b is a "):
        roundtrip(tmp_path, {"a": [0, {"b": value}]})
    with pytest.raises(TypeError, match=r"a key of .*training_state\.a is a frozenset"):
        roundtrip(tmp_path, {"a": {frozenset(): 0}})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_says_so(tmp_path):
    roundtrip(tmp_path, {"a": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"000002: cannot be written .File too large"):
            save(tmp_path, 2, lambda _: None, {"a": torch.zeros(10**6)}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert newest_valid(tmp_path) == tmp_path / "000001"
