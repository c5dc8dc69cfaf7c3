"""The project's own source files, parsed, for the rules that are checked on them."""

import ast
import re
import subprocess
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ("rlft", "envs")


@dataclass(frozen=True)
class Source:
    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def module(self) -> str:
        """Dotted name: rlft.policy.base, rlft_envs.toy, scripts.report."""
        return self.name.removeprefix("envs/").removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    def imports(self) -> set[str]:
        """Every module that is imported anywhere in the file; ``from a import b`` gives both a and a.b."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}:{node.lineno}: relative import"
                found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        return found

    @cached_property
    def docstrings(self) -> set[ast.Constant]:
        found = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0] if node.body else None
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    found.add(first.value)
        return found


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    return tuple(Source(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


def library() -> tuple[Source, ...]:
    return sources(*LIBRARY)


def calls(source: Source) -> list[tuple[ast.Call, str]]:
    """Every call, with what is called as text."""
    return [(node, ast.unparse(node.func)) for node in ast.walk(source.tree) if isinstance(node, ast.Call)]


def within(module: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or below one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def text_files() -> list[Path]:
    """Every text file that is, or would be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    binary = re.compile(r".*\.(png|jpg|gif|mp4|safetensors|glb|npz|parquet)")
    return [ROOT / name for name in listed if not binary.fullmatch(name) and (ROOT / name).is_file()]
