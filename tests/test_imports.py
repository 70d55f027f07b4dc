"""The floors hold, and what must start fast does not import what is slow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pixelkin

PACKAGE = Path(pixelkin.__file__).parent
FLOORS = {
    "data": 0,
    "formats": 1,
    "metrics": 1,
    "viz": 1,
    "warping": 1,
    "cues": 2,
    "models": 2,
    "grouping": 2,
    "training": 3,
    "methods": 4,
    "students": 4,
    "refinement": 5,
    "run": 5,
    "api": 6,
    "demo": 7,
    "cli_output": 8,
    "cli": 8,
    "__main__": 9,
}
STRANGERS = {"cues", "models", "grouping"}
LIGHT = {"data", "formats", "metrics", "viz"}
HEAVY = {"torch", "torchvision", "timm", "accelerate", "numba"}


def room_of(path: Path) -> str:
    """The subpackage or top-level module a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Dotted names a file imports, anywhere in it; names imported from the package itself are resolved."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            if module == "pixelkin":
                found |= {f"pixelkin.{alias.name}" for alias in node.names}
            else:
                found.add(module)
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_from_its_floor_or_below(path: Path) -> None:
    room = room_of(path)
    assert room in FLOORS, f"{room} has no floor: give it one"
    for name in imports_of(path):
        top, *rest = name.split(".")
        if top != "pixelkin":
            assert not (room in LIGHT and top in HEAVY), f"{name} is too heavy for {room}"
            continue
        if not rest or rest[0] not in FLOORS:
            continue
        assert FLOORS[rest[0]] <= FLOORS[room], f"{room} imports from above: {name}"
        if room in STRANGERS and rest[0] in STRANGERS:
            assert rest[0] == room, f"{room} and {rest[0]} do not import each other"


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import pixelkin",
        "import pixelkin.cli",
        "import pixelkin; pixelkin.list_methods()",
        "import pixelkin; pixelkin.list_backbones()",
        "import pixelkin; pixelkin.open_dataset; pixelkin.evaluate; pixelkin.label",
        "from pixelkin.cli import run; run(['--help'])",
        "from pixelkin.cli import run; run(['methods'])",
    ],
)
def test_starting_is_light(statement: str) -> None:
    assert not HEAVY & modules_after(statement)


def test_the_command_line_starts_with_next_to_nothing() -> None:
    assert not {"numpy", "scipy", "cv2", "PIL", "pydantic"} & modules_after("import pixelkin.cli")


def test_the_public_names_are_there() -> None:
    assert set(pixelkin.__all__) <= set(dir(pixelkin))
    for name in pixelkin.__all__:
        assert getattr(pixelkin, name) is not None
    with pytest.raises(AttributeError, match="train_everything"):
        pixelkin.train_everything  # noqa: B018
