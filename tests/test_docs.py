"""The documentation tells the truth: its commands parse, its SQL and Python run, its tables are the code's.

    python -m tests.test_docs    rewrites every block between `<!-- begin NAME -->` and `<!-- end NAME -->`

Run it after a change of an option, a column, a statistic, an error word, a class table or pipelines/own_network.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from pipelines.demo_model import train
from segface_batch import catalog, cli, job as jobs
from segface_batch.catalog import COMMON, PAIRED
from segface_batch.class_tables import CLASS_TABLES
from segface_batch.command_line import command_line
from segface_batch.curate.query import query
from segface_batch.errors import ERRORS
from segface_batch.images.statistics import SHAPES, STATISTICS, STATS
from segface_batch.job import Job
from segface_batch.output import plan
from segface_batch.output.schema import COLUMNS
from segface_batch.pipeline import fetch, metrics, resources
from segface_batch.storage import retry
from tests.conftest import PORTRAITS

ROOT = Path(__file__).parents[1]

#: Every page, by its path below the repository.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy" / "README.md")
}

README, OUTPUT, PYTHON, NETWORKS = "README.md", "docs/output.md", "docs/python.md", "docs/networks.md"
STATISTICS_PAGE = "docs/statistics.md"

#: The data sets whose class tables are known.
DATASETS = [*CLASS_TABLES.values()]

#: Folders of the repository, by which a path in the text is known.
FOLDERS = ("segface_batch", "pipelines", "tests", "docs", "deploy", ".ci")

#: The options of other programs that pages name.
FOREIGN_OPTIONS = {"--build-arg", "--compile-bytecode"}


# What is generated


def table(*rows: tuple[str, ...]) -> str:
    """Rows of cells, the header first, as Markdown, where a bare `<` begins HTML."""
    head, *body = (tuple(re.sub(r"`[^`]*`|[|<]", escaped, cell) for cell in row) for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *body)).replace("| --- ", "|---")


def escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("`") else f"\\{found[0]}"


def columns() -> str:
    rows = [(f"`{name}`", f"`{kind}`", meaning) for name, kind, _, meaning in COLUMNS]
    return table(("column", "type", "meaning"), *rows)


def statistics() -> str:
    """A table for each table of the output."""
    text = []
    for name in (STATS, SHAPES):
        rows = [
            (f"`{each.shown}`", f"`{each.type}`", each.unit, each.meaning, each.source)
            for each in STATISTICS
            if each.table == name
        ]
        text.append(f"In `{name}`:\n\n" + table(("column", "type", "unit or range", "meaning", "follows"), *rows))
    return "\n\n".join(text)


def common() -> str:
    """The classes behind each common name."""
    names = [(name, name) for name in COMMON] + [(f"{name}_left, {name}_right", name) for name in PAIRED]
    rows = [
        (
            ", ".join(f"`{each}`" for each in shown.split(", ")),
            *(", ".join(f"`{dataset.class_names[label]}`" for label in dataset.ids(name)) for dataset in DATASETS),
        )
        for shown, name in names
    ]
    return table(("common name", *(dataset.name for dataset in DATASETS)), *rows)


def errors() -> str:
    return table(("error", "the image"), *((f"`{word}`", meaning) for word, meaning in ERRORS.items()))


def classes() -> str:
    return "\n\n".join(
        table(
            ("id", f"{dataset.name}", "covers", "colour"),
            *(
                (str(number), f"`{each.name}`", each.meaning, "#{:02x}{:02x}{:02x}".format(*each.color))
                for number, each in enumerate(dataset.classes)
            ),
        )
        for dataset in DATASETS
    )


def own_network() -> str:
    """The file as a block of Python."""
    path = ROOT / "pipelines" / "own_network.py"
    return f"```python\n{path.read_text().strip()}\n```" if path.exists() else "(pipelines/own_network.py)"


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of every verb, in the order of the help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield verb
                yield from parsers(verb)


def settings(parser: argparse.ArgumentParser) -> dict[str, tuple[str, ...]]:
    """Every argument and option of a verb: its name, what it takes, its default, its meaning, and whether a resume must
    repeat it."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        name = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest).upper()
        takes = " ".join(f"`{each}`" for each in action.choices or [action.metavar] if each)
        takes = takes if action.option_strings else ""
        if action.option_strings and not takes and action.nargs != 0:
            takes = f"`{action.dest.upper()}`"
        text = " ".join((action.help or "").split()) % {**vars(action), "prog": parser.prog}
        meaning, _, default = text.partition(" (default: ")
        after = ""
        if default:
            default, _, after = default.rpartition(")")
        elif action.nargs == 0:
            default = "off"
        elif action.option_strings:
            default = "required" if action.required else "none"
        field = Job.__dataclass_fields__.get(action.dest)
        kept = "yes" if field is not None and field.metadata.get("recorded") else ""
        found[name] = (f"`{name}`", takes, default, meaning + after, kept)
    return found


def options() -> str:
    verbs = {parser.prog.partition(" ")[2]: settings(parser) for parser in parsers(command_line())}
    job = verbs["annotate"]
    text = []
    for verb, own in verbs.items():
        # What annotate takes too is said once, there.
        repeated = [name for name in own if verb != "annotate" and name.startswith("--") and job.get(name) == own[name]]
        rest = [row for name, row in own.items() if name not in repeated]
        text.append(f"## {verb}")
        if set(repeated) == {name for name in job if name.startswith("--")}:
            text.append("All options of [annotate](#annotate), and:")
        elif repeated and rest:
            text.append(f"{', '.join(f'`{name}`' for name in repeated)} as for [annotate](#annotate), and:")
        if rest:
            head = ("option", "takes", "default", "meaning", "a resume must repeat it")
            wide = verb == "annotate"  # of the others none resumes
            text.append(table(*((row if wide else row[:-1]) for row in (head, *rest))))
    return "\n\n".join(text)


#: What stands between the marks of that name, and on which page.
GENERATED: dict[str, tuple[str, Callable[[], str]]] = {
    "columns": (OUTPUT, columns),
    "statistics": (STATISTICS_PAGE, statistics),
    "common": (STATISTICS_PAGE, common),
    "errors": (OUTPUT, errors),
    "classes": (OUTPUT, classes),
    "options": ("docs/options.md", options),
    "own_network": (NETWORKS, own_network),
}


def marked(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- begin {name} -->\n)(.*?)(<!-- end {name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_blocks_are_those_of_the_code(name: str) -> None:
    page, generate = GENERATED[name]
    found = marked(name).search(PAGES[page])
    assert found is not None, f"{page} lacks the marks of {name}"
    assert found[2] == f"{generate()}\n", f"run `python -m tests.test_docs`, or paste into {page}:\n{generate()}"


# Commands


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def lines(page: str) -> list[str]:
    """The command lines of a page."""
    return [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]


def words_behind(program: str, line: str) -> Iterator[list[str]]:
    """The words that a program gets in a command line, which may call it several times or behind another program."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words, commands = list(lexer), []
    for number, word in enumerate(words):
        if word == program and not re.match("--.", words[number - 1] if number else ""):
            commands.append(number + 1)
    for start in commands:
        ends = (at for at in range(start, len(words)) if re.fullmatch(r"[|&;<>()]+", words[at]))
        yield words[start : next(ends, len(words))]


def commands(program: str = "segface-batch", page: str | None = None) -> list[list[str]]:
    """The words behind the program in every command of a page, or of all."""
    pages = PAGES if page is None else [page]
    return [words for each in pages for line in lines(each) for words in words_behind(program, line)]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one_that_the_command_line_takes(words: list[str]) -> None:
    chosen, unknown = command_line().parse_known_args(words)
    assert unknown == []
    assert callable(cli.COMMANDS[chosen.command])


@pytest.mark.parametrize("words", commands("pipelines.demo_model.train"), ids=" ".join)
def test_every_training_is_one_that_the_program_takes(words: list[str]) -> None:
    assert catalog.find(train.command_line().parse_args(words).checkpoint)


def test_every_verb_and_option_in_the_text_exists() -> None:
    known = {name for parser in parsers(command_line()) for name in settings(parser)}
    known |= {name for action in train.command_line()._actions for name in action.option_strings}
    for page, text in PAGES.items():
        for span in re.findall(r"`([^`\n]+)`", text):
            if verb := re.match(r"segface-batch ([a-z]+)", span):
                assert verb[1] in cli.COMMANDS, f"{page}: {span}"
            if span.startswith(("--", "segface-batch ")):
                named = set(re.findall(r"(?<!\S)--[a-z][\w-]*", span))
                assert named <= known | FOREIGN_OPTIONS, f"{page}: {span}"


def test_every_program_exists() -> None:
    for page, text in PAGES.items():
        for module in re.findall(r"-m ((?:pipelines|tests)(?:\.\w+)+)", text):
            place = ROOT / module.replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), f"{page}: {module}"


def test_the_first_commands_are_those_of_a_clone() -> None:
    """tests/test_demo.py runs the demo."""
    assert lines(README)[:2] == [
        "pip install uv && uv run segface-batch demo",
        "pip install uv && uv run --group dev pytest",
    ]


@pytest.mark.slow
def test_the_first_real_commands_do_what_they_say(
    command: Callable[..., subprocess.CompletedProcess[str]], hub: Path, tmp_path: Path
) -> None:
    shutil.copytree(PORTRAITS, tmp_path / PORTRAITS.relative_to(ROOT))
    first = next(words for words in commands(page=README) if words[0] == "annotate")
    done = command(*first, HF_HOME=str(hub))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    told = done.stderr.splitlines()
    assert told[0] == "getting the weights of mobilenet_celeba_512 ..."
    assert "2 images: 2 with faces; 2 faces" in told
    assert told[-1] == "      segface-batch show out IMAGE_ID"
    assert not [line for line in told if "ray" in line.lower() and line != "starting Ray ..."]
    asked = next(words for words in commands(page=README) if words[0] == "query")
    answer = command(*asked)
    assert answer.stdout.splitlines()[0].split() == ["image_id", "frac_hair"]
    assert len(answer.stdout.splitlines()) == 4
    shown = command("show", "out", "grace_hopper.jpg")
    assert shown.stdout == "grace_hopper-overlay.png\n", shown.stderr


# SQL and Python


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sql")])
def test_the_sql_examples_run(page: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(output.parent)
    connection = duckdb.connect()
    for block in blocks(page, "sql"):
        for statement in connection.extract_statements(block):
            connection.execute(statement).fetchall()


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "query"], ids=" ".join)
def test_every_query_has_an_answer(words: list[str], output: Path) -> None:
    assert query(str(output), command_line().parse_args(words).sql).read_all().num_columns


def run(program: str, folder: Path, **environment: str) -> str:
    """What a Python program prints, run in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_that_reads_an_output_runs(output: Path) -> None:
    for program in blocks(OUTPUT, "python"):
        assert run(program, output.parent)


@pytest.mark.slow
def test_the_python_examples_run(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(PORTRAITS, tmp_path / "faces", ignore=shutil.ignore_patterns("*.md"))
    offline = {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"}
    printed = [run(program, tmp_path, **offline) for program in blocks(PYTHON, "python")]
    assert "{'ok': 2} {}" in printed[0]
    assert printed[1] == "(1, 512, 512)\n"
    assert printed[2].count("'frac_hair'") == 2


def test_no_page_has_python_that_no_test_runs() -> None:
    """That of NETWORKS is a file, which tests/pipelines runs."""
    assert {page for page in PAGES if blocks(page, "python")} <= {OUTPUT, PYTHON, NETWORKS}


# The text around them


def test_readme_is_short() -> None:
    assert PAGES[README].count("\n") <= 150


def test_readme_links_every_page() -> None:
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[README])}
    assert {page for page in PAGES if page != README} <= linked


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if re.match(r"\w+://", target):
            continue
        name, _, anchor = target.partition("#")
        place = (ROOT / page).parent / name if name else ROOT / page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place.read_text()), target


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_the_text_exists(page: str) -> None:
    for path in re.findall(rf"(?<![\w/.-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*)", PAGES[page]):
        assert list(ROOT.glob(path.rstrip("./"))), path


def test_every_metric_in_the_text_exists() -> None:
    known = {f"ray_{name}" for name in (*metrics.COUNTERS, metrics.BUSY)}
    found = set(re.findall(r"ray_segface_\w+", "".join(PAGES.values())))
    assert found == known


def test_numbers_of_the_code_are_those_of_the_text() -> None:
    """Facts that stand in prose too, where no table is derived from the code."""
    tuning, reliability = (" ".join(PAGES[f"docs/{page}.md"].split()) for page in ("tuning", "reliability"))
    grown = plan.SMALL_PLAN * plan.LARGEST_UNIT // plan.MAX_UNIT
    for fact in (
        f"{plan.MIN_UNIT} to {plan.MAX_UNIT} images (up to {plan.MAX_CELLS} rows of a Parquet file)",
        f"at most {plan.MAX_UNIT_BYTES >> 20} MB of encoded bytes",
        f"first 2^{plan.SMALL_PLAN.bit_length() - 1} images of a plan",
        f"to {plan.LARGEST_UNIT:,} images at 2^{grown.bit_length() - 1}",
        f"The default, {jobs.DEFAULT_PART_ROWS:,},",
        f"at most {resources.MOST_GPU_THREADS}",
    ):
        assert fact in tuning, fact
    assert f"repeats the request for {retry.SECONDS:.0f} seconds" in reliability
    assert f"all images of a unit ({fetch.FATAL_IMAGES} or more)" in reliability


def rewrite() -> None:
    """Put what the code says between the marks."""
    for name, (page, generate) in GENERATED.items():
        text, new = (ROOT / page).read_text(), generate()
        (ROOT / page).write_text(marked(name).sub(lambda hit, new=new: f"{hit[1]}{new}\n{hit[3]}", text))


if __name__ == "__main__":
    rewrite()
