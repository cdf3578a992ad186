"""Data flows one way, and imports follow it: a module imports only from layers before its own, and no cycle is left."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import segface_batch

ROOT = Path(segface_batch.__file__).parent

#: Folders and modules of the library, each of which imports only from those before it.
LAYERS = (
    ("catalog", "errors"),
    ("class_tables",),
    ("storage",),
    ("images",),
    ("model",),
    ("inputs",),
    ("job", "progress", "streams"),
    ("output",),
    ("pipeline",),
    ("__init__",),
    ("curate", "forecast"),
    ("demo", "doctor"),
    ("command_line",),
    ("cli",),
)


def modules() -> dict[str, Path]:
    """Every module of the library by its name below `segface_batch`."""
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in paths}


MODULES = modules()


def imported(name: str) -> Iterator[str]:
    """The modules of the library that one imports, in functions and for type checkers too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports hide where a module is"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for place in found:
            if place.startswith("segface_batch."):
                inside = place.removeprefix("segface_batch.")
                yield inside if inside in MODULES else inside.rpartition(".")[0] or "__init__"


def layer(name: str) -> int:
    (index,) = [index for index, entries in enumerate(LAYERS) if name.partition(".")[0] in entries]
    return index


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_layers_before_its_own(name: str) -> None:
    folder = name.partition(".")[0]
    for other in imported(name):
        assert other.partition(".")[0] == folder or layer(other) < layer(name), f"{name} imports {other}"


def test_there_is_no_cycle() -> None:
    try:
        tuple(TopologicalSorter({name: set(imported(name)) - {name} for name in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")
