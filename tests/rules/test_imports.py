"""Who may import whom: scripts -> run -> everything else; simulators and tasks know the contract and nothing more."""

import subprocess
import sys

import pytest
from rules_source import library, sources, within

HEAVY = ["torch", "mani_skill", "sapien", "lerobot", "transformers", "wandb", "hydra", "matplotlib", "torchvision"]
HEAVY += ["pooch"]

# Package of rlft -> what of rlft it may import, beside itself; the longest name that fits counts. A new edge is a
# decision.
BORDER = ["rlft.types", "rlft.plugins", "rlft.errors"]  # what simulators and tasks know
BASE = "errors rows seeding types"
ALLOWED = {
    "types": "",
    "errors": "",
    "seeding": "",
    "statistics": "",
    "manifest": "",
    "progress": "",
    "plugins": "errors",
    "files": "errors",
    "rows": "types",
    "assets": "errors",
    "config": "errors plugins",
    "waiting": "config",
    "placement": "config errors rows",
    "data": f"{BASE} config placement progress",
    "policy": f"{BASE} config data manifest placement plugins",
    "rollout.buffer": "placement rows",  # what an objective reads and the sampler fills
    "objective": f"{BASE} config placement plugins policy rollout.buffer statistics",
    "rollout": f"{BASE} objective placement policy",
    "learn": f"{BASE} config data objective placement policy rollout.buffer",
    "evaluate": f"{BASE} config files placement policy rollout statistics",
    "report": "config errors evaluate files statistics",
    "plan": f"{BASE} config data objective placement plugins policy rollout",
    "completion": "config",
    "sweep": "config errors evaluate files",
    "cli": "assets completion config errors plan run sweep waiting",
    "__main__": "cli errors",
}
ALLOWED = {f"rlft.{name}": [f"rlft.{one}" for one in allowed.split()] for name, allowed in ALLOWED.items()}
COMPOSERS = ("rlft.run",)  # it connects the parts, so it knows them


def test_packages_import_only_what_they_may():
    wrong = []
    for source in sources("rlft"):
        owner = next((package for package in ALLOWED if within(source.module, package)), None)
        if owner is None:
            assert within(source.module, *COMPOSERS) or source.module == "rlft", f"{source.name} is not in ALLOWED"
            continue
        for name in source.imports():
            if within(name, "rlft") and name != "rlft" and not within(name, owner, *ALLOWED[owner]):
                wrong.append(f"{source.name} imports {name}")
    assert wrong == []


def test_only_the_composition_root_knows_the_simulators():
    # The collector starts workers that demonstrate.
    allowed = {"rlft.run.assembly.envs", "rlft.data.collect"}
    importers = {s.module for s in sources("rlft") if any(within(name, "rlft_envs") for name in s.imports())}
    assert importers <= allowed


def test_nothing_imports_the_composition_root_but_the_stages_and_nothing_the_stages_but_the_commands():
    importers = {
        root: {s.module for s in sources("rlft", "envs", "scripts") if any(within(n, root) for n in s.imports())}
        for root in ("rlft.run.assembly", "rlft.run.stages")
    }
    assert importers["rlft.run.assembly"]
    assert all(within(name, "rlft.run.stages", "rlft.run.assembly") for name in importers["rlft.run.assembly"])
    assert {name for name in importers["rlft.run.stages"] if not within(name, "rlft.run.stages")} == {"rlft.cli"}


def test_simulators_import_the_contract_and_nothing_else_of_the_learner():
    wrong = [
        f"{s.name} imports {name}"
        for s in sources("envs")
        for name in s.imports()
        if within(name, "rlft") and not within(name, *BORDER)
    ]
    assert [w for w in wrong if w.split()[-1] != "rlft"] == []


def test_scripts_are_thin():
    allowed = ("rlft.assets", "rlft.cli", "rlft.run", "rlft.plan", "rlft.config.schema")
    for source in sources("scripts"):
        for name in source.imports():
            assert not within(name, "rlft_envs"), source.name
            assert name == "rlft" or not within(name, "rlft") or within(name, *allowed), f"{source.name} imports {name}"


def test_cv2_is_imported_nowhere():
    for source in sources("rlft", "envs", "scripts", "tests"):
        assert not any(within(name, "cv2") for name in source.imports()), source.name


@pytest.mark.parametrize("first", ["import rlft, rlft_envs", "import rlft_envs.simulator", "import rlft.cli"])
def test_importing_the_packages_is_light(first):
    code = f"{first}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_simulators_keep_to_the_syntax_of_the_oldest_interpreter_they_may_run_under():
    import ast

    for source in [*sources("envs"), *(s for s in library() if s.module in BORDER)]:
        ast.parse(source.text, feature_version=(3, 10))
        names = {name.name for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom) for name in node.names}
        # Newer than Python 3.10 in typing and enum.
        assert not names & {"Self", "override", "StrEnum", "assert_never", "Unpack", "TypeVarTuple"}, source.name
