"""Writes docs/configuration.md from the schema: ``python -m tools.configuration [--check]``."""

import sys
from collections.abc import Mapping
from pathlib import Path

from rlft.config.fields import Setting, settings
from rlft.config.renamed import ALIASES, REPLACED
from tools.pages import write_or_check

PATH = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

HEAD = """\
# Settings

Written from the schema in `rlft/config/` by `make docs`; do not edit.

A setting is given as `key=value` on the command line of any script, or in a YAML file
(`--config-dir DIR --config-name NAME`). Files of the groups in `configs/` (`task`, `policy`, `placement`, `algo`,
`randomization`, `recipe`, `suite`) set several at once (`task=pick_cube`), and `env.id` alone picks the task file that
serves it; the order is schema defaults, group files, entry file, command line. `--cfg` prints what comes out. An
unknown key, a wrong type or a value out of range is an error before anything is built, and so are settings that do not
fit each other (`rlft/config/checks.py`). `-m seed=0,1,2` runs each, one after the other.
"""


def configuration_page() -> str:
    """The whole page, Markdown."""
    every = list(settings())
    parts = [HEAD, "## Top level\n", _table(every, "")]
    for x in every:
        if x.is_section:
            default = " Null by default." if x.default == "null" else ""
            parts += [f"## {x.path}\n\n{x.doc}{default}\n", _table(every, f"{x.path}[]" if x.is_list else x.path)]
    parts.append("## Keys of the field's first code base\n\nAccepted under their old name:\n")
    parts.append(_pairs("here", {old: f"`{new}`" for old, new in ALIASES.items()}))
    parts.append("Refused, with this advice:\n")
    parts.append(_pairs("instead", REPLACED))
    return "\n".join(part for part in parts if part)


def _table(every: list[Setting], section: str) -> str:
    rows = [x for x in every if x.path.rpartition(".")[0] == section and not x.is_section]
    lines = ["| key | default | type | meaning |", "| --- | --- | --- | --- |"]
    for x in rows:
        kind = ", ".join(text for text in (x.type_text(), x.limits_text()) if text)
        cells = [f"`{x.path}`", f"`{x.default}`", kind, x.doc]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n" if rows else ""


def _pairs(head: str, rows: Mapping[str, str]) -> str:
    return (
        "\n".join([f"| old | {head} |", "| --- | --- |", *(f"| `{old}` | {new} |" for old, new in rows.items())]) + "\n"
    )


def main(argv: list[str]) -> int:
    """Write the page, or with ``--check`` compare it with the file; 1 where they differ."""
    return write_or_check(PATH, configuration_page(), check="--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
