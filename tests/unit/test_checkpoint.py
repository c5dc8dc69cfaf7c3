import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from rlft import manifest
from rlft.errors import DivergedError
from rlft.run.checkpoint import CheckpointError, find_resume, load_state, newest_valid, save


def write_model(path: Path) -> None:
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(bytes(range(256)) * 8)


def put(directory: Path, step: int, keep: int = 3, write=write_model) -> Path:
    return save(directory, step, write, {"step": step, "w": torch.arange(5.0) + step}, keep)


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def test_a_checkpoint_comes_back(tmp_path):
    path = put(tmp_path / "c", 7)
    assert path == tmp_path / "c" / "000007"
    assert newest_valid(tmp_path / "c") == path
    state = load_state(path)
    assert state["step"] == 7
    assert torch.equal(state["w"], torch.arange(5.0) + 7)
    assert (tmp_path / "c" / "last" / "pretrained_model" / "config.json").read_text() == "{}"
    assert os.readlink(tmp_path / "c" / "last") == "000007"


def test_the_newest_are_kept(tmp_path):
    for step in (2, 9, 10, 100):
        put(tmp_path, step, keep=2)
    assert names(tmp_path) == ["000010", "000100", "last"]


def test_the_best_stays_beside_the_newest(tmp_path):
    def keep_one(step, best):
        save(tmp_path, step, write_model, {"step": step}, 1, best=best)

    for step, best in ((1, True), (2, False), (3, False)):
        keep_one(step, best)
    assert names(tmp_path) == ["000001", "000003", "best", "last"]
    keep_one(4, True)
    assert names(tmp_path) == ["000004", "best", "last"]
    assert load_state(tmp_path / "best") == {"step": 4}
    keep_one(2, False)  # an early resume: what was best belongs to the history that it left
    assert names(tmp_path) == ["000002", "000004.superseded", "last"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_never_written(tmp_path, bad):
    put(tmp_path, 1)
    state = {"optimizer": [{"exp_avg": torch.tensor([0.0, bad])}]}
    with pytest.raises(DivergedError, match=r"training_state\.optimizer\[0\]\.exp_avg holds NaN or infinity") as stop:
        save(tmp_path, 2, write_model, state, 3)
    assert stop.value.exit_code == 3
    assert names(tmp_path) == ["000001", "last"]


def test_a_step_is_replaced(tmp_path):
    put(tmp_path, 1)
    save(tmp_path, 1, write_model, {"step": 1, "second": True}, 3)
    assert load_state(tmp_path / "000001") == {"step": 1, "second": True}
    assert names(tmp_path) == ["000001", "000001.superseded", "last"]


def test_an_earlier_step_sets_later_ones_aside_and_removes_none(tmp_path, caplog):
    for step in (1, 2, 3):
        put(tmp_path, step)
    put(tmp_path, 2)
    assert names(tmp_path) == ["000001", "000002", "000002.superseded", "000003.superseded", "last"]
    assert newest_valid(tmp_path) == tmp_path / "000002"
    assert "kept as 000003.superseded" in caplog.text


def flip_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


WEIGHTS = "pretrained_model/model.safetensors"
DAMAGE = {
    "flipped bit in the weights": (lambda p: flip_bit(p / WEIGHTS), "SHA-256 differs"),
    "flipped bit in the state": (lambda p: flip_bit(p / "state.pt"), "SHA-256 differs"),
    "truncated": (lambda p: os.truncate(p / WEIGHTS, 100), "has 100 bytes, 2048 were written"),
    "empty": (lambda p: os.truncate(p / "state.pt", 0), "has 0 bytes"),
    "missing file": (lambda p: (p / "state.pt").unlink(), "is missing"),
    "missing manifest": (lambda p: (p / "manifest.json").unlink(), "no manifest.json"),
    "damaged manifest": (lambda p: (p / "manifest.json").write_text('{"files": {"a": {}}}'), "json is damaged"),
    "cut manifest": (lambda p: os.truncate(p / "manifest.json", 30), "manifest.json is damaged"),
    "lfs": (lambda p: (p / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
    "html": (lambda p: (p / WEIGHTS).write_text("<!DOCTYPE html><p>404"), "web page"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_broken_checkpoint_is_skipped_with_its_reason(tmp_path, caplog, kind):
    damage, reason = DAMAGE[kind]
    put(tmp_path, 1)
    damage(put(tmp_path, 2))
    assert newest_valid(tmp_path) == tmp_path / "000001"
    assert len(caplog.records) == 1
    assert "000002" in caplog.text
    assert reason in caplog.text
    with pytest.raises(CheckpointError, match="000002"):
        find_resume(str(tmp_path / "000002"), tmp_path)


def write_policy(path: Path) -> None:
    """As save_pretrained does: with a manifest of its own, so that the directory can be copied elsewhere."""
    write_model(path)
    manifest.write_manifest(path)


@pytest.mark.parametrize("kind", ["flipped bit in the weights", "truncated", "lfs"])
def test_a_manifest_below_is_followed(tmp_path, kind):
    damage, reason = DAMAGE[kind]
    path = put(tmp_path, 1, write=write_policy)
    assert find_resume(str(path), tmp_path) == path
    damage(path)
    with pytest.raises(CheckpointError, match=f"000001: pretrained_model/model.safetensors.*{reason}"):
        find_resume(str(path), tmp_path)


def test_a_changed_manifest_below_is_noticed(tmp_path):
    path = put(tmp_path, 1, write=write_policy) / "pretrained_model" / "manifest.json"
    path.write_text(path.read_text().replace("a", "b", 1))
    with pytest.raises(CheckpointError, match=r"pretrained_model/manifest\.json is not what was written"):
        find_resume(str(tmp_path / "000001"), tmp_path)


def test_every_byte_is_hashed_once_by_a_save_and_once_by_a_resume(tmp_path, monkeypatch):
    hashed = []
    original = manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", lambda path: (hashed.append(path), original(path))[1])
    path = put(tmp_path, 1, write=write_policy)
    files = sorted(p.name for p in path.rglob("*") if p.is_file() and p != path / "manifest.json")
    assert sorted(p.name for p in hashed) == files
    hashed.clear()
    load_state(find_resume("auto", tmp_path))
    assert sorted(p.name for p in hashed) == files


def test_what_resume_means(tmp_path):
    assert find_resume(None, tmp_path) is None
    assert find_resume("auto", tmp_path / "none") is None
    first, second = put(tmp_path, 1), put(tmp_path, 2)
    assert find_resume("auto", tmp_path) == second
    assert find_resume(str(first), tmp_path / "none") == first
    with pytest.raises(CheckpointError, match="checkpoints of an earlier run; continue it with resume=auto"):
        find_resume(None, tmp_path)


def test_leftovers_of_a_kill_are_removed_at_the_start(tmp_path):
    put(tmp_path, 1)
    (tmp_path / ".tmp-000002-99" / "pretrained_model").mkdir(parents=True)
    (tmp_path / ".tmp-last-99").symlink_to("000001")
    assert newest_valid(tmp_path) == tmp_path / "000001"
    assert names(tmp_path) == ["000001", "last"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_full_disk_leaves_earlier_checkpoints_and_no_rubbish(tmp_path, error):
    def fill(path):
        write_model(path)
        raise error

    put(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"000002: cannot be written .No space left"):
        put(tmp_path, 2, write=fill)
    assert names(tmp_path) == ["000001", "last"]
    find_resume(str(tmp_path / "000001"), tmp_path)


def test_other_errors_of_the_writer_pass_through_and_leave_no_rubbish(tmp_path):
    def fail(_path):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        put(tmp_path, 1, write=fail)
    assert names(tmp_path) == []


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from rlft.run.checkpoint import load_state, newest_valid, save

directory, draw = Path(sys.argv[1]), random.Random(0)

def write(step):
    def parts(path):
        for i in range(4):
            (path / f"part{i}").write_bytes(bytes([step % 251]) * 50_000)
    return parts

def save_forever(count):
    while True:
        count += 1
        save(directory, count, write(count), {"count": count, "w": torch.full((5000,), float(count))}, 2)
        os.pwrite(done, b"%08d" % count, 0)

save(directory, 2, write(2), {"count": 2, "w": torch.full((5000,), 2.0)}, 2)
count, done = 2, os.open(directory.parent / "done", os.O_RDWR | os.O_CREAT)
os.pwrite(done, b"%08d" % count, 0)
for trial in range(12):
    child = os.fork()
    if child == 0:
        save_forever(count)
    time.sleep(draw.uniform(0.01, 0.25))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    newest = newest_valid(directory)
    state = load_state(newest)
    assert state["w"].eq(state["count"]).all()
    # What save() returned from is there, or something newer.
    assert state["count"] >= int(os.pread(done, 8, 0)), (trial, state["count"])
    assert (directory / "last").resolve().is_dir()
    assert not [p for p in directory.iterdir() if p.name.startswith(".")]
    count = state["count"]
print(count)
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    # One process imports torch; it forks, kills and checks the ones that save.
    done = subprocess.run([sys.executable, "-c", KILLS, str(tmp_path / "c")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10, "the children hardly came to save"


def test_the_hash_is_sha256_of_the_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert manifest.sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


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
