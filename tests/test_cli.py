from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segface_batch import catalog, cli
from segface_batch.command_line import command_line
from segface_batch.job import LABELS, Job, flag
from segface_batch.storage import configure, options
from tests.conftest import PORTRAITS

Command = Callable[..., "subprocess.CompletedProcess[str]"]

#: What must not be loaded before a command runs.
HEAVY = ("torch", "timm", "ray", "pyarrow", "numpy", "PIL", "duckdb", "fsspec", "huggingface_hub")


def test_help_and_mistakes_load_no_heavy_package(tmp_path: Path) -> None:
    program = (
        "import sys; from segface_batch import cli\n"
        "for words in (['plan', '--help'], ['annotate', '--help'], ['annotate', '.', 'out', '--checkpoint', 'swin']):\n"
        "    try: print(cli.main(words), file=sys.stderr)\n"
        "    except SystemExit as end: print(end.code, file=sys.stderr)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr.splitlines()[0] == "0"
    assert done.stderr.splitlines()[-1] == "2"


@pytest.mark.parametrize("arguments", [(), ("annotate",), ("plan",)], ids=str)
def test_help_answers_at_once(command: Command, arguments: tuple[str, ...]) -> None:
    before = os.times()
    assert command(*arguments, "--help").returncode == 0
    after = os.times()
    # CPU seconds, which depend little on what else the machine does.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.3


def test_the_help_of_annotate_shows_every_setting_its_default_and_its_choices(command: Command) -> None:
    text = " ".join(command("annotate", "--help", COLUMNS="200").stdout.split())
    for each in dataclasses.fields(Job):
        if each.metadata.get("group") == LABELS:  # of measure
            continue
        assert each.metadata["help"] in text, each.name
        if "group" not in each.metadata:
            continue
        assert f"{each.metadata['group']}: --" in text
        assert flag(each.name) in text
        if each.metadata["choices"] is not None:
            assert f"{flag(each.name)} {{{','.join(each.metadata['choices'])}}}" in text
        if each.default not in (None, ()) and not isinstance(each.default, bool):
            assert f"{each.metadata['help']} (default: {each.default})" in text


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["anotate"], "argument VERB: invalid choice: 'anotate'"),
        (["annotate", "a"], "the following arguments are required: output"),
        (["annotate", "a", "b", "--chekpoint", "c"], "unknown argument '--chekpoint'; did you mean --checkpoint?"),
        (["annotate", "a", "b", "--checkp", "c"], "unknown argument '--checkp'; did you mean --checkpoint?"),
        (["annotate", "a", "b", "--actors", "two"], "argument --actors: 'two' is not MIN:MAX, like 2:8"),
        (["measure", "a", "b"], "the following arguments are required: --class-table"),
        (["annotate", "nowhere", "out"], "segface-batch: no folder or manifest 'nowhere'; check the path"),
        (["plan", "nowhere"], "segface-batch: no folder or manifest 'nowhere'; check the path"),
        (["plan", ".", "--sample", "0"], "segface-batch: --sample 0: give a whole number from 1 up"),
        (["plan", ".", "--prices", "nowhere.toml"], "segface-batch: no prices file 'nowhere.toml'"),
        (["annotate", "a", "b", "--threads", "many"], "argument --threads: invalid int value: 'many'"),
        (["query", "nowhere", "select 1"], "nowhere"),
        (["query", "out", "select 1", "--format", "csv", "--to", "out/stats/a.csv"], "lies inside the output"),
        (["verify", "nowhere", "--storage-options", '{"secret": "s3cr3t"}'], "has 'secret' on the command line"),
        (["show", "nowhere", "a.jpg"], "nowhere"),
        (["show", "nowhere", "--face", "1"], "segface-batch: --face 1 is for one image: give its IMAGE_ID too"),
        (["checkpoints", "fetch", "swinb"], "unknown checkpoint 'swinb'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(command: Command, words: list[str], answer: str) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert answer in done.stderr


class Asked(Exception):
    """What a verb asked a function for."""


#: Words, and what they must come to: the function that is called, and with what.
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "verify out": ("output.verify.verify", {"out": "out", "quick": False}),
    "verify out --quick": ("output.verify.verify", {"out": "out", "quick": True}),
    "query out sql": ("curate.query.query", {"out": "out", "sql": "sql", "timeout": None, "memory_limit": "2GB"}),
    "query out sql --timeout 2.5 --memory-limit 1GB": (
        "curate.query.query",
        {"out": "out", "sql": "sql", "timeout": 2.5, "memory_limit": "1GB"},
    ),
    "show out": ("curate.sheet.sheet", {"out": "out", "target": Path("sheet.png")}),
    "show out --to a.png": ("curate.sheet.sheet", {"out": "out", "target": Path("a.png")}),
    "show out some/face.jpg": (
        "curate.show.show",
        {"out": "out", "image_id": "some/face.jpg", "target": Path("face-overlay.png"), "face": None},
    ),
    "show out face.jpg --face 1 --to a.png": (
        "curate.show.show",
        {"out": "out", "image_id": "face.jpg", "target": Path("a.png"), "face": 1},
    ),
    "checkpoints fetch swinb_celeba_512 --revision v1": (
        "model.weights.locate",
        {"checkpoint": catalog.find("swinb_celeba_512"), "weights": None, "revision": "v1"},
    ),
    "checkpoints convert a.pt b.safetensors --checkpoint swinb_celeba_512": (
        "model.weights.convert",
        {"checkpoint": catalog.find("swinb_celeba_512"), "source": Path("a.pt"), "target": Path("b.safetensors")},
    ),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, list[str]], dict[str, Any]]]:
    """Runs a verb in this process up to a function, and says what that was called with."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(function: str, words: list[str]) -> dict[str, Any]:
        place = f"segface_batch.{function}"
        module, name = place.rsplit(".", 1)
        takes = inspect.signature(getattr(importlib.import_module(module), name))

        def stop(*given: object, **named: object) -> None:
            raise Asked({**takes.bind(*given, **named).arguments})

        monkeypatch.setattr(place, stop)
        with pytest.raises(Asked) as caught:
            cli.main(words)
        return caught.value.args[0]

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    configure(None)


@pytest.mark.parametrize("words", OPTIONS)
def test_what_a_verb_is_told_reaches_what_does_it(words: str, asked: Callable[..., dict[str, Any]]) -> None:
    function, expected = OPTIONS[words]
    assert asked(function, words.split()) == expected


@pytest.mark.parametrize("words", [words for words in OPTIONS if words.split()[0] in ("verify", "query", "show")])
def test_a_verb_reads_an_output_with_the_storage_options_it_is_given(
    words: str, asked: Callable[..., dict[str, Any]]
) -> None:
    given = ["--storage-options", '{"s3": {"anon": true}}', "--s3-client", "obstore"]
    asked(OPTIONS[words][0], [*words.split(), *given])
    assert (options.given("s3"), options.s3_client()) == ({"anon": True}, "obstore")


@pytest.mark.parametrize(
    ("places", "inputs", "output"),
    [
        (["list.txt"], ("list.txt",), "memory://segface-plan"),
        (["list.txt", "out"], ("list.txt",), "out"),
        (["list.txt", "list.csv", "out"], ("list.txt", "list.csv"), "out"),
    ],
)
def test_plan_takes_the_last_of_several_places_for_the_output(
    places: list[str], inputs: tuple[str, ...], output: str, asked: Callable[..., dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("list.txt", "list.csv"):
        Path(name).touch()
    given = asked("forecast.forecast.forecast", ["plan", *places, "--sample", "7"])
    assert (given["job"].inputs, given["job"].output, given["sample"]) == (inputs, output, 7)


def test_an_error_is_told_without_its_secrets_and_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: object
) -> None:
    for error, code in (
        (ValueError, 2),
        (FileNotFoundError, 2),
        (NotADirectoryError, 2),
        (OSError, 1),
        (PermissionError, 1),
        (TimeoutError, 1),
        (RuntimeError, 1),
    ):

        def fails(chosen: object, error: type[Exception] = error) -> int:
            raise error("http://host/a.jpg?sig=secret is gone")

        monkeypatch.setitem(cli.COMMANDS, "checkpoints", fails)
        assert cli.main(["checkpoints"]) == code, error
        assert capsys.readouterr().err == "segface-batch: http://host/a.jpg?sig=REDACTED is gone\n"


def test_a_query_does_not_overwrite_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: object, tmp_path: Path
) -> None:
    answer = pa.table({"images": [2]})
    monkeypatch.setattr("segface_batch.curate.query.query", lambda *_, **__: answer.to_reader())
    target = tmp_path / "answer.csv"
    words = ["query", "out", "sql", "--format", "csv", "--to", str(target)]
    assert cli.main(words) == 0
    assert target.read_text() == '"images"\n2\n'
    target.write_text("mine")
    assert cli.main(words) == 1
    assert capsys.readouterr().err == f"segface-batch: [Errno 17] File exists: '{target}'\n"
    assert target.read_text() == "mine"


def test_numbers_and_names_in_one_option_are_taken_apart() -> None:
    words = ["annotate", "in", "out", "--actors", "4", "--columns", "a, b,,c "]
    chosen = command_line().parse_args(words)
    assert (chosen.actors, chosen.columns) == ((4, 4), ("a", "b", "c"))
    assert command_line().parse_args([*words, "--actors", "2:8"]).actors == (2, 8)


def test_without_internet_the_hint_names_the_weights(command: Command, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    done = command("annotate", "faces", "out", HF_HOME=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert "--weights FILE" in done.stderr.splitlines()[-1]
    assert "--checkpoint demo-synthetic comes with the package" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_checkpoints_are_a_table(command: Command) -> None:
    done = command("checkpoints")
    lines = done.stdout.splitlines()
    header = ("name", "backbone", "pixels", "data set", "classes", "mean F1", "landmarks", "weights")
    assert lines[0].split() == " ".join(header).split()
    assert [line.split()[0] for line in lines[1:]] == list(catalog.CHECKPOINTS)
    assert lines[1].split()[1:] == ["convnext_base", "512", "CelebAMask-HQ", "19", "89.22", "-", "hub"]
    assert lines[-1].split()[1:] == ["mobilenet_small", "192", "CelebAMask-HQ", "19", "-", "-", "in", "the", "package"]


@pytest.mark.slow
def test_a_published_file_becomes_safetensors(command: Command, weights: Path, tmp_path: Path) -> None:
    done = command("checkpoints", "convert", weights, "small.safetensors", "--checkpoint", "mobilenet_celeba_512")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small.safetensors: 27 MB")
    wrong = command("checkpoints", "convert", weights, "x.safetensors", "--checkpoint", "swinb_celeba_224")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_run_that_fails_says_why_in_one_line(command: Command, weights: Path, ray_address: str) -> None:
    words = ["annotate", PORTRAITS, "out", "--checkpoint", "resnet_celeba_512", "--weights", weights]
    done = command(*words, RAY_ADDRESS=ray_address)
    assert (done.returncode, done.stdout) == (1, "")
    *told, last = done.stderr.splitlines()
    assert told[-1] == "loading the model ...", done.stderr
    assert last.startswith(f"segface-batch: a worker failed: ValueError: {weights} does not fit resnet_celeba_512: ")
