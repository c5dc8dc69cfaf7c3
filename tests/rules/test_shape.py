"""Size and style that a linter does not see."""

import ast
import re
import statistics

from rules_source import ROOT, calls, library, sources

EVERYTHING = ("rlft", "envs", "scripts", "tests", "benchmarks", "tools")
FILE_LINES, FUNCTION_LINES, LOOP_LINES = 400, 60, 80
TRAINING_LOOP = ("rlft/run/runner.py", "run")


def test_files_are_short():
    lengths = {s.name: s.text.count("\n") for s in sources(*EVERYTHING)}
    assert {name: n for name, n in lengths.items() if n > FILE_LINES} == {}
    assert statistics.median(n for name, n in lengths.items() if not name.startswith("tests/") and n > 1) <= 160


def test_functions_are_short():
    long = []
    for source in sources(*EVERYTHING):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                limit = LOOP_LINES if (source.name, node.name) == TRAINING_LOOP else FUNCTION_LINES
                if length >= limit:
                    long.append(f"{source.name}:{node.lineno} {node.name}: {length} lines")
    assert long == []


DEVICE = re.compile(r"cpu|cuda(:\d+)?")
DEVICE_FILES = {
    "rlft/placement.py": "parses and checks them",
    "rlft/types.py": "defaults of the contract",
    "rlft/waiting.py": "has to look at them before torch is loaded",
    "rlft/config/schema.py": "defaults of the settings",
    "rlft/config/learning.py": "defaults of the settings",
    "envs/rlft_envs/maniskill/devices.py": "names of physics backends and of SAPIEN's own render devices",
}


def test_device_names_stand_in_one_place():
    found = [
        f"{source.name}:{node.lineno} {node.value!r}"
        for source in library()
        if source.name not in DEVICE_FILES
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in source.docstrings
        if DEVICE.fullmatch(node.value)
    ]
    assert found == []


CONFIG = re.compile(r"\b(cfg|config|settings)\b")


def test_settings_are_attributes():
    """A misspelled name in ``.get`` or ``hasattr`` silently gives the default; an attribute fails."""
    found = [
        f"{source.name}:{node.lineno} {ast.unparse(node)}"
        for source in library()
        for node, name in calls(source)
        if (name in ("hasattr", "getattr") and CONFIG.search(ast.unparse(node.args[0])))
        or (name.endswith(".get") and CONFIG.search(name))
    ]
    assert found == []


TORCH_DRAWS = re.compile(r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial)")
GLOBAL_DRAWS = re.compile(r"random\.\w+|(np|numpy)\.random\.(?!default_rng|Generator|SeedSequence|PCG64|Philox)\w+")
LIKE_DRAWS = re.compile(r"torch\.\w+_like|.*\.(normal_|uniform_|bernoulli_|random_|exponential_)")
GLOBAL_STREAM = {
    # Inside ManiSkill's reset, which has seeded the stream, or row_draws.py, which replaces it.
    ("envs/rlft_envs/maniskill/variations.py", "torch.rand"): "seeded by the reset that it is called in",
    ("rlft/objective/base.py", "torch.manual_seed"): "within fork_rng: layers initialise from the global stream",
    ("rlft/policy/pi0/factory.py", "torch.manual_seed"): "within fork_rng, as above",
}


def test_nothing_draws_from_a_global_stream():
    found = []
    for source in library():
        for node, name in calls(source):
            has_generator = any(keyword.arg == "generator" for keyword in node.keywords)
            draws = (
                (TORCH_DRAWS.fullmatch(name) and not has_generator)
                or name in ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed")
                or GLOBAL_DRAWS.fullmatch(name)
                or (LIKE_DRAWS.fullmatch(name) and "rand" in name)
                or (LIKE_DRAWS.fullmatch(name) and name.endswith("_") and not has_generator and "init." not in name)
            )
            if draws and (source.name, name) not in GLOBAL_STREAM:
                found.append(f"{source.name}:{node.lineno} {name}")
    assert found == []


def test_exceptions_to_the_rules_are_needed():
    """An entry that nothing needs any more would hide the next offender."""
    names = {source.name: source for source in library()}
    assert set(DEVICE_FILES) <= set(names)
    for file, call in GLOBAL_STREAM:
        assert call in [name for _, name in calls(names[file])], (file, call)
    for file in DEVICE_FILES:
        values = [node.value for node in ast.walk(names[file].tree) if isinstance(node, ast.Constant)]
        assert any(isinstance(value, str) and DEVICE.fullmatch(value) for value in values), file


def test_test_files_have_names_of_their_own():
    ours = [path for path in (ROOT / "tests").rglob("*.py") if "plugins" not in path.parts]  # packages of "users"
    names = [path.name for path in ours if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
    assert "__init__.py" not in names
