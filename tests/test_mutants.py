"""The list of wrong changes is alive, and the tests notice those of what was changed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from tests.mutants.__main__ import ROOT, Mutant, mutants, problem

#: Files of the library without logic of their own: what is imported late, a protocol, a hook for tests.
PLAIN = {"__init__.py", "storage/store.py", "storage/failpoint.py"}


def test_every_wrong_change_applies_and_names_tests_that_exist() -> None:
    """A change is one to the code of today; `mutants` raises where one is not."""
    assert len(mutants()) >= 150


def test_the_wrong_changes_are_spread_over_the_library() -> None:
    count = Counter(mutant.file for mutant in mutants())
    assert max(count.values()) <= 25
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "segface_batch").rglob("*.py")}
    lacking = {
        module
        for module in modules - {*count}
        if "def " in (ROOT / module).read_text() and module.removeprefix("segface_batch/") not in PLAIN
    }
    assert sorted(lacking) == []


ONE = Mutant("segface_batch/errors.py", "a change", "class FatalError", "class Fatal", ("tests/test_errors.py",))


@pytest.mark.parametrize(
    ("mutant", "reason"),
    [
        (ONE, None),
        (replace(ONE, file="segface_batch/none.py"), "there is no such file"),
        (replace(ONE, old="class "), "the old text occurs 4 times"),
        (replace(ONE, old="class Fatality"), "the old text occurs 0 times"),
        (replace(ONE, new=ONE.old), "old and new are the same"),
        (replace(ONE, tests=("tests/test_none.py",)), "there is no tests/test_none.py"),
        (replace(ONE, tests=("tests/test_errors.py::test_none",)), "there is no tests/test_errors.py::test_none"),
        (replace(ONE, tests=()), "it names no tests"),
    ],
)
def test_a_wrong_change_that_no_longer_applies_is_an_error(mutant: Mutant, reason: str | None) -> None:
    assert problem(mutant) == reason


@pytest.mark.slow
@pytest.mark.timeout(3600)  # of many modules at once; a usual change takes minutes
def test_the_wrong_changes_of_modules_that_changed_are_caught() -> None:
    command = [sys.executable, "-m", "tests.mutants", "--changed", "--keep"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
