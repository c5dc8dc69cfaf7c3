"""The completion scripts, asked by the shells that they are for."""

import shutil
import subprocess

import pytest

from rlft.cli import OPTIONS
from rlft.completion import completion_script

ASK = {
    "bash": """
COMP_LINE="rlft-train-rl $1"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_rlft; printf "%s\\n" "${COMPREPLY[@]}"
""",
    # compadd works inside zsh's line editor alone; a function in its place prints what it is given and would keep.
    "zsh": """
compadd() { print -l -- ${(M)${@[$@[(i)--]+1,-1]}:#$words[CURRENT]*} }
words=(rlft-train-rl ${=1}); CURRENT=$#words; _rlft
""",
}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_options_groups_keys_and_choices_are_completed(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")

    def completed(line):
        command = [shell, "-c", completion_script(shell, ["train-rl"], OPTIONS) + ASK[shell], shell, line]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    def values(key, *words):  # bash completes what comes after the =
        return list(words) if shell == "bash" else [f"{key}={word}" for word in words]

    assert completed("--conf") == ["--config-dir", "--config-name"]
    assert completed("--config-name demo") == ["demo_cpu"]
    assert completed("train.gamma") == ["train.gamma=", "train.gamma_per="]
    assert completed("placement=") == values("placement", "cpu", "one_gpu", "three_gpus")
    assert completed("seed=1 train.gamma_per=s") == values("train.gamma_per", "step")
    assert completed("sim.overlap=") == values("sim.overlap", "true", "false", "null")
    assert completed("no.such") == []
