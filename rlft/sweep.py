"""Sweeps: ``-m seed=0,1,2 train.gamma=0.9,0.99`` runs every combination, one after the other, into one table."""

import argparse
import itertools
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException

from rlft.config.compose import parse_override
from rlft.config.load import dump, load
from rlft.errors import ConfigError

KEY_RESULTS = ("success", "success_rate", "final_loss")  # of the files of a run, the first that a file has
log = logging.getLogger(__name__)


def sweep(entry: str, args: argparse.Namespace, own: Sequence[str] = ()) -> int:
    """Run every member in a process of its own, then print the table of them; ``sweep.json`` beside them holds it.

    All settings are checked before the first member starts. One that fails does not stop those after it. With
    ``args.cfg`` every member's settings are shown instead. Returns the worst exit status.

    Raises:
        ConfigError: no word has several values, or a member's settings are wrong; says which member's.
    """
    members, settings, problems = expand(args.overrides), {}, []
    for name, words in members.items():
        try:
            settings[name] = load(entry, words, args.config_dir, args.config_name)
        except ConfigError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    first = next(iter(settings.values()))
    if args.cfg:
        sys.stdout.write("---\n".join(f"# {name}\n{dump(cfg)}" for name, cfg in settings.items()))
        return 0
    root = Path(first.output.dir) if first.output.dir else Path("outputs") / f"{first.name}_sweep"
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rlft", entry.removesuffix("_demos").replace("_", "-"), *own]
    command += ["--config-dir", str(args.config_dir)] if args.config_dir else []
    command += ["--config-name", args.config_name] if args.config_name else []
    rows: list[dict[str, Any]] = []
    for name, words in members.items():
        log.info("member %d of %d: %s", len(rows) + 1, len(members), name)
        started = time.perf_counter()
        quoted = str(root / name).replace("'", "\\'")  # in Hydra's grammar
        status = _run([*command, *words, f"output.dir='{quoted}'"])
        row = {"member": name, "status": status, "seconds": round(time.perf_counter() - started, 1)}
        rows.append({**row, "results": _results(root / name)})
        (root / "sweep.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{table(rows)}\n{root / 'sweep.json'}\n")
    return max(row["status"] for row in rows)


def expand(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Every combination of the values of lists; its name, which is that of its directory, and its words.

    Raises:
        ConfigError: no word has several values, or the values of one cannot be counted.
    """
    axes, swept = list[list[str]](), list[bool]()
    for text in overrides:
        override = parse_override(text)
        swept.append(override.is_sweep_override())
        if swept[-1] and override.key_or_group == "output.dir":
            raise ConfigError(f"{text!r}: every member has a directory of its own below output.dir; give one")
        try:
            key = override.get_key_element()
            axes.append([f"{key}={x}" for x in override.sweep_string_iterator()] if swept[-1] else [text])
        except HydraException as error:
            raise ConfigError(f"{text!r}: these values cannot be counted; list them: {key}=1,2,3") from error
    if not any(swept):
        raise ConfigError("-m: no setting has several values; give a list without brackets, for instance seed=0,1,2")
    combinations = [list(words) for words in itertools.product(*axes)]
    names = [re.sub(r"[^\w.,=+-]", "_", ",".join(itertools.compress(words, swept)))[:200] for words in combinations]
    alike = len(set(names)) < len(names)
    return {f"{i}_{name}" if alike else name: words for i, (name, words) in enumerate(zip(names, combinations))}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The members side by side, Markdown: exit status, seconds, and the key result of every file of results."""
    columns = list(dict.fromkeys(name for row in rows for name in row["results"]))
    cells = [["member", "exit", "seconds", *columns], ["---"] * (3 + len(columns))]
    for row in rows:
        known = [row["member"], str(row["status"]), f"{row['seconds']:.1f}"]
        cells.append(known + [row["results"].get(name, "") for name in columns])
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _results(directory: Path) -> dict[str, str]:
    """File of results -> its key result, with its 95 % interval where it has one."""
    found = {}
    for file in sorted(directory.glob("*.json")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        key = next((key for key in KEY_RESULTS if isinstance(facts, dict) and facts.get(key) is not None), None)
        if key is not None:
            interval = "" if "ci95" not in facts else " [{:.2f}, {:.2f}]".format(*facts["ci95"])
            found[file.stem] = f"{facts[key]:.4g}{interval}"
    return found


def _run(command: list[str]) -> int:
    """The exit status of a member. It hears of Ctrl-C and SIGTERM once, from here, and is waited for."""
    with subprocess.Popen(command, start_new_session=True) as member:
        try:
            status = member.wait()
        except BaseException as stop:
            member.send_signal(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
            member.wait()
            raise
    return status if status >= 0 else 128 - status
