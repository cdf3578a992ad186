"""Makes small wrong changes to the code, one at a time, and tells which of them the tests notice.

    python -m tests.mutants [--changed] [--keep] [--tested] [--jobs 2] [NAME ...]

A wrong change is data, in the TOML files beside this one: the file, the text that must occur there exactly once
(`old`), what a tired developer writes instead (`new`), what that breaks (`what`), and the tests that must fail
(`tests`: files or test ids).  A change that no longer applies is an error, so that the list stays alive.  NAME chooses
the changes whose file or description contains it.  `--changed` chooses those of files that differ from `checked.json`,
which has the SHA-256 of every file, with its wrong changes, when all of them were last caught; a run that catches them
all renews it, but for `--keep`.

First the tests must pass on the unchanged tree; `--tested` says that they did just now, and saves that time.
Every change is made in a copy of the tree; nothing here is touched. Exit code 1 where one survived.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LISTS = Path(__file__).parent
CHECKED = LISTS / "checked.json"

#: A change that makes its tests hang is noticed too.
SECONDS_AT_MOST = 300


@dataclass(frozen=True)
class Mutant:
    file: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> None:
        path = tree / self.file
        path.write_text(path.read_text().replace(self.old, self.new))


def mutants() -> list[Mutant]:
    """All wrong changes, in the order of their files; ValueError names those that do not apply."""
    found = []
    for path in sorted(LISTS.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutant"]:
            found.append(Mutant(**{**entry, "tests": tuple(entry["tests"])}))
    wrong = [f"{mutant.file}: {mutant.what}: {why}" for mutant in found if (why := problem(mutant))]
    if wrong:
        raise ValueError("wrong changes that do not apply:\n" + "\n".join(wrong))
    return found


def problem(mutant: Mutant) -> str | None:
    """Why the change cannot be made and tried, None where it can."""
    path = ROOT / mutant.file
    if not path.is_file():
        return "there is no such file"
    if (times := path.read_text().count(mutant.old)) != 1:
        return f"the old text occurs {times} times"
    if mutant.old == mutant.new:
        return "old and new are the same"
    if not mutant.tests:
        return "it names no tests"
    missing = [test for test in mutant.tests if not _exists(test)]
    return f"there is no {', '.join(missing)}" if missing else None


def _exists(test: str) -> bool:
    path, _, name = test.partition("::")
    return (ROOT / path).exists() and (not name or f"def {name.split('[')[0]}(" in (ROOT / path).read_text())


class Trees:
    """Copies of the tree, as many as tests may run at once."""

    def __init__(self, folder: Path, count: int):
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._clock = int(time.time())
        for number in range(count):
            copy = folder / str(number)
            ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", "out")
            shutil.copytree(ROOT, copy, ignore=ignored)
            self._free.put(copy)

    def outcome(self, tests: tuple[str, ...], mutant: Mutant | None = None) -> tuple[str, float]:
        """("caught" | "survived" | what went wrong, seconds): what the tests say of a change."""
        tree = self._free.get()
        began = time.perf_counter()
        try:
            if mutant:
                mutant.apply(tree)
                self._touch(tree / mutant.file)
            return _outcome_of_tests(tree, tests, SECONDS_AT_MOST if mutant else None), time.perf_counter() - began
        finally:
            if mutant:
                shutil.copyfile(ROOT / mutant.file, tree / mutant.file)
                self._touch(tree / mutant.file)
            self._free.put(tree)

    def _touch(self, path: Path) -> None:
        """Gives the file a time that it never had: Python compiles again only what has another second or size."""
        self._clock += 1
        os.utime(path, (self._clock, self._clock))


def _outcome_of_tests(tree: Path, tests: tuple[str, ...], seconds: float | None) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-m", "not long"]
    with tempfile.TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            [*command, f"--basetemp={scratch}/tests", *tests],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},  # before the installed package, in subprocesses too
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return "caught"
    if process.returncode in (0, 1, 2):
        return "caught" if process.returncode else "survived"
    return f"pytest ended with {process.returncode}: {said[-400:]}"


def _changed(found: list[Mutant]) -> list[Mutant]:
    known = json.loads(CHECKED.read_text()) if CHECKED.exists() else {}
    now = states(found)
    return [mutant for mutant in found if known.get(mutant.file) != now[mutant.file]]


def states(found: list[Mutant]) -> dict[str, str]:
    """By file, the SHA-256 of its content and of all changes to it."""
    hashes = {file: hashlib.sha256((ROOT / file).read_bytes()) for file in sorted({mutant.file for mutant in found})}
    for mutant in found:
        hashes[mutant.file].update(repr(mutant).encode())
    return {file: state.hexdigest() for file, state in hashes.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only changes whose file or description contains it")
    parser.add_argument("--changed", action="store_true", help="only changes of files that differ from checked.json")
    parser.add_argument("--keep", action="store_true", help="leave checked.json as it is")
    parser.add_argument("--tested", action="store_true", help="the tests passed just now on the unchanged tree")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at once (default: %(default)s)")
    options = parser.parse_args()
    found = mutants()
    chosen = _changed(found) if options.changed else found
    if options.names:
        chosen = [mutant for mutant in chosen if any(name in mutant.file + mutant.what for name in options.names)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = Trees(Path(folder), options.jobs)
        if chosen and not options.tested:
            _refuse_broken(trees, tuple(sorted({test for mutant in chosen for test in mutant.tests})))
        survived = _run(trees, chosen, options.jobs)
    if not survived and not options.names and not options.keep:
        CHECKED.write_text(json.dumps(states(found), indent=1) + "\n")
    return 1 if survived else 0


def _refuse_broken(trees: Trees, tests: tuple[str, ...]) -> None:
    """SystemExit where the tests fail without any change."""
    outcome, _ = trees.outcome(tests)
    if outcome != "survived":
        sys.exit(f"the tests fail on the unchanged tree ({outcome}); nothing can be said: pytest {' '.join(tests)}")


def _run(trees: Trees, chosen: list[Mutant], jobs: int) -> int:
    """How many survived."""
    survived = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as threads:
        outcomes = threads.map(lambda mutant: trees.outcome(mutant.tests, mutant), chosen)
        for number, (mutant, (outcome, seconds)) in enumerate(zip(chosen, outcomes, strict=True), 1):
            print(f"{number:3}/{len(chosen)}  {outcome:8}  {seconds:5.1f} s  {mutant.file}: {mutant.what}", flush=True)
            survived += outcome != "caught"
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    return survived


if __name__ == "__main__":
    sys.exit(main())
