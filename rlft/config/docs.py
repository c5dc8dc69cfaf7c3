"""Writes docs/configuration.md from the schema: ``python -m rlft.config.docs [--check]``."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, get_origin

from rlft.config.fields import Setting, describe_limits, describe_type, section_of, settings, split_optional
from rlft.config.renamed import ALIASES, REPLACED
from rlft.generated import write_or_check

PATH = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

HEAD = """\
# Settings

Written from `rlft/config/schema.py` and `rlft/config/learning.py` by `make docs`; do not edit.

A setting is given as `key=value` on the command line of any script, or in a YAML file
(`--config-dir DIR --config-name NAME`). Files of the groups in `configs/` (`task`, `policy`, `placement`, `algo`,
`randomization`, `recipe`, `suite`) set several at once (`task=pick_cube`), and `env.id` alone picks the task file that
serves it; the order is schema defaults, group files, entry file, command line. `--cfg` prints what comes out. An
unknown key, a wrong type or a value out of range is an error before anything is built, and so are settings that do not
fit each other (`rlft/config/checks.py`).
"""


def settings_lines() -> list[str]:
    """All settings in plain text, one or two lines each, for ``--help``."""
    lines: list[str] = []
    for setting in settings():
        if section_of(setting.type) is not None:
            lines += ["", f"  {setting.path}: {setting.field.metadata['doc']}"]
            continue
        limits = describe_limits(setting.field)
        lines.append(
            f"    {setting.path} = {default_text(setting.field)}: {_doc(setting)}" + (f" [{limits}]" if limits else "")
        )
    return lines


def configuration_page() -> str:
    """The whole page, Markdown."""
    parts = [
        HEAD,
        "## Top level\n",
        _table([s for s in settings() if _section(s) == "" and section_of(s.type) is None]),
    ]
    for setting in settings():
        if section_of(setting.type) is None:
            continue
        default = " Null by default." if default_text(setting.field) == "null" else ""
        parts.append(f"## {setting.path}\n\n{setting.field.metadata['doc']}{default}\n")
        mark = f"{setting.path}[]" if get_origin(split_optional(setting.type)[0]) is list else setting.path
        parts.append(_table([s for s in settings() if _section(s) == mark and section_of(s.type) is None]))
    parts.append(_old_keys())
    return "\n".join(part for part in parts if part)


def default_text(field: Field[Any]) -> str:
    """A default as one would write it on the command line."""
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join("{...}" if dataclasses.is_dataclass(x) else str(x) for x in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _section(setting: Setting) -> str:
    return setting.path.rpartition(".")[0]


def _doc(setting: Setting) -> str:
    return str(setting.field.metadata["doc"])


def _table(rows: list[Setting]) -> str:
    if not rows:
        return ""
    lines = ["| key | default | type | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        limits = describe_limits(row.field)
        kind = describe_type(row.type) + (f", {limits}" if limits else "")
        cells = [f"`{row.path}`", f"`{default_text(row.field)}`", kind, _doc(row)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _old_keys() -> str:
    lines = [
        "## Keys of the field's first code base\n",
        "Accepted under their old name:\n",
        "| old | here |",
        "| --- | --- |",
    ]
    lines += [f"| `{old}` | `{new}` |" for old, new in ALIASES.items()]
    lines += ["", "Refused, with this advice:\n", "| old | instead |", "| --- | --- |"]
    lines += [f"| `{old}` | {text} |" for old, text in REPLACED.items()]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    """Write the page, or with ``--check`` compare it with the file; 1 where they differ."""
    return write_or_check(PATH, configuration_page(), check="--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
