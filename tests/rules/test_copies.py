"""What passes between devices passes through rlft/placement.py.

A read of a single number (``float(x)``, ``if x``) cannot be seen in the text: tests/unit/policy/test_crossings.py
counts those of a decision and of a micro-batch.
"""

import ast
import re

import pytest
from rules_source import Source, calls, sources

PLACE = "rlft/placement.py"
COPIES = {"cpu", "cuda", "numpy", "pin_memory", "new_tensor"}  # methods that are a copy, or are one on a GPU
MAKERS = re.compile(r"torch\.(tensor|as_tensor|asarray|from_numpy)")
DTYPE = re.compile(r"torch\.(float|bfloat|u?int|bool|double|long|half)\w*|(.*\.)?(\w*_)?dtype")

# Where copies are made that no step of a rollout or an update repeats, or that the file itself is about.
ONCE = {
    ("rlft/objective/base.py", "to"): "the model is built",
    ("rlft/policy/pi0/factory.py", "to"): "the model is built",
    ("rlft/policy/pi0/factory.py", "tensor"): "the model is built",
    ("rlft/policy/weights_io.py", "to"): "weights are loaded",
    ("rlft/policy/denoise.py", "to"): "a schedule is made",
    ("rlft/data/normalize.py", "numpy"): "statistics of a dataset, which is on the host",
    ("rlft/run/stages.py", "numpy"): "a video of a dataset, which is on the host",
    ("rlft/rollout/buffer.py", "non_blocking"): "a decision is stored",
}


def copies(source: Source) -> list[tuple[int, str]]:
    """(line, what) of every call that copies between devices, or may."""
    found = []
    for node, name in calls(source):
        method = name.rpartition(".")[2]
        keywords = {k.arg for k in node.keywords}
        given = [ast.unparse(x) for x in (*node.args, *(k.value for k in node.keywords if k.arg != "dtype"))]
        if isinstance(node.func, ast.Attribute):
            if method in COPIES or (method == "to" and not all(DTYPE.fullmatch(x) for x in given)):
                found.append((node.lineno, method))
            if MAKERS.fullmatch(name) and "device" in keywords:
                found.append((node.lineno, method))
        if "non_blocking" in keywords:
            found.append((node.lineno, "non_blocking"))
        if "pin_memory" in keywords:
            found.append((node.lineno, "pin_memory"))
    return found


def test_copies_between_devices_are_made_in_one_module():
    found = [
        f"{source.name}:{line} {what}"
        for source in sources("rlft")
        if source.name != PLACE
        for line, what in copies(source)
        if (source.name, what) not in ONCE
    ]
    assert found == []


def test_exceptions_are_needed():
    made = {(source.name, what) for source in sources("rlft") for _, what in copies(source)}
    assert set(ONCE) <= made


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("to", ["x.to(device)", "x.to(self.device, torch.float32)", "x.to(device=other.device)", "x.to('cuda')"]),
        ("cpu", ["x.cpu()"]),
        ("cuda", ["x.cuda()"]),
        ("numpy", ["x.numpy()"]),
        ("pin_memory", ["x.pin_memory()", "torch.empty(3, pin_memory=True)"]),
        ("new_tensor", ["x.new_tensor([1.0])"]),
        ("as_tensor", ["torch.as_tensor(x, device=d)"]),
        ("tensor", ["torch.tensor([1], device=d)"]),
        ("non_blocking", ["a.copy_(b, non_blocking=True)"]),
        (None, ["x.to(torch.float32)", "x.to(error.dtype)", "x.to(dtype)", "x.to(dtype=torch.int8)", "to_numpy(x)"]),
        (None, ["torch.as_tensor(x, dtype=torch.float32)", "torch.zeros(3, device=x.device)", "move(x, device)"]),
    ],
)
def test_a_copy_is_seen(tmp_path, what, lines):
    path = tmp_path / "a.py"
    path.write_text("\n".join(lines))
    assert [found for _, found in copies(Source(path))] == ([] if what is None else [what] * len(lines))
