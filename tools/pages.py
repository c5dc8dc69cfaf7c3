"""Pages of the documentation that are made from code or result files: written, or compared with what is there."""

import sys
from pathlib import Path

from rlft.files import write_text_atomically


def write_or_check(path: Path, text: str, *, check: bool) -> int:
    """Write a page; with ``check`` compare the file instead.

    Returns:
        an exit status: 1 where the file is not the page.
    """
    if not check:
        write_text_atomically(path, text)
        return 0
    current = path.read_text(encoding="utf-8") if path.is_file() else None
    if current != text:
        sys.stderr.write(f"{path.name} is not what it is made from; run: make docs\n")
    return int(current != text)
