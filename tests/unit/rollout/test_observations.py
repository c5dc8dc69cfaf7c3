import numpy as np
import pytest
import torch

from rlft.rollout.observations import indices, put_rows, take_rows
from rlft.types import Observation, map_rows


def observation(rows, start=0, *, to=np.asarray):
    numbers = np.arange(start, start + rows, dtype=np.float32)
    return Observation(
        images={"cam": to(np.tile(numbers[:, None, None, None], (1, 2, 2, 3)).astype(np.uint8))},
        state=to(numbers[:, None]),
        task=[f"task {int(i)}" for i in numbers],
        privileged=to(numbers[:, None] * 10),
    )


@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_rows_are_taken_in_the_order_asked_for(to):
    taken = take_rows(observation(4, to=to), [2, 0])
    assert taken.state[:, 0].tolist() == [2.0, 0.0]
    assert taken.images["cam"][:, 0, 0, 0].tolist() == [2, 0]
    assert taken.task == ["task 2", "task 0"]


@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_putting_rows_changes_these_rows_of_a_copy_only(to):
    old = observation(4, to=to)
    merged = put_rows(old, [3, 1], observation(2, start=7, to=to))
    assert merged.state[:, 0].tolist() == [0.0, 8.0, 2.0, 7.0]
    assert merged.privileged[:, 0].tolist() == [0.0, 80.0, 20.0, 70.0]
    assert merged.task == ["task 0", "task 8", "task 2", "task 7"]
    assert old.state[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_indices_of_either_kind_of_mask():
    assert indices(np.array([True, False, True])) == [0, 2] == indices(torch.tensor([True, False, True]))


def test_nested_states_have_the_rows_of_their_arrays():
    tree = {"a": {"b": torch.arange(6.0).view(3, 2)}, "none": None}
    assert map_rows(lambda x: x[[2]], tree)["a"]["b"].tolist() == [[4.0, 5.0]]
    assert map_rows(torch.add, tree, tree)["a"]["b"][1].tolist() == [4.0, 6.0]
    assert map_rows(torch.clone, tree)["none"] is None
