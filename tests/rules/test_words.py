"""Nothing of one person's machine is in the repository, and nothing that is not finished."""

import re
from pathlib import Path

import pytest
from rules_source import ROOT, library, sources, text_files

# Written in pieces, so that this file does not contain them.
HOSTS = ("pypi" + ".org", "python" + "hosted.org", "deb." + "debian.org", "archive." + "ubuntu.com")
HOMES = re.compile(r"(?<![\w.])/(home|Users)/[a-z]\w*/")

# What is known by name in one place alone: the word, where it may stand, and why there.
KNOWN_ONLY_IN = {
    "pi0|pi_0|π0|π₀": {
        "rlft/policy/": "the policies themselves",
        "rlft/plugins.py": "the table of what comes with this package",
    },
    r"mani[_-]?skill|carrot|\bplates?\b|put_?on_?plate": {
        "rlft/plugins.py": "as above",
        "rlft/policy/pi0/tokenizer.py": "sentences that the small tokenizer is made of",
    },
}


@pytest.mark.parametrize("word", KNOWN_ONLY_IN)
def test_what_is_exchangeable_is_named_in_its_own_room_alone(word):
    allowed, found, needed = KNOWN_ONLY_IN[word], [], set()
    for source in sources("rlft"):
        lines = [n for n, text in enumerate(source.text.splitlines(), 1) if re.search(word, text, re.IGNORECASE)]
        places = {place for place in allowed if source.name.startswith(place)}
        needed |= places if lines else set()
        found += [] if places else [f"{source.name}:{number}" for number in lines]
    assert found == []
    assert sorted(set(allowed) - needed) == []


def test_no_path_of_a_machine_and_no_package_host_is_written_down():
    here = [str(path) + "/" for path in (ROOT, ROOT.parent, Path.home()) if len(path.parts) > 1]
    found = []
    for path in text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if any(word in line for word in (*HOSTS, *here)) or HOMES.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_no_code_is_left_for_later():
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X{3})\b")
    found = [
        f"{source.name}:{number}"
        for source in sources("rlft", "envs", "scripts", "tests", "benchmarks", "tools")
        for number, line in enumerate(source.text.splitlines(), 1)
        if marks.search(line)
    ]
    found += [source.name for source in library() if "NotImplemented" in source.text]
    assert found == []


def test_the_lock_names_one_version_of_each_package_and_no_place():
    lines = [x for x in (ROOT / "requirements.lock").read_text().splitlines() if not x.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines)
    names = [line.split("==")[0].lower().replace("_", "-") for line in lines]
    assert sorted(names) == sorted(set(names))
    assert {"torch", "lerobot", "mani-skill", "sapien", "hydra-core", "wandb", "pytest", "ruff", "mypy"} <= set(names)
    assert "opencv-python" not in names
