"""The verbs, options, help and examples of the command line, on the standard library alone.

The options of a job come from the fields of `Job`.
"""

from __future__ import annotations

import argparse
import difflib
import types
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from segface_batch import job as jobs
from segface_batch.job import Job

FIRST_JOB = """\
a first look, without any download:
  segface-batch demo

first job:
  segface-batch annotate faces/ out/
  segface-batch query out/ "select * from stats limit 5"
"""

ANNOTATE_EXAMPLES = """\
examples:
  segface-batch annotate faces/ out/
  segface-batch annotate faces/ out/ --checkpoint mobilenet_celeba_512     # much faster on a CPU
  segface-batch annotate faces/ out/ --decode fast                         # faster with large JPEGs, not exact
  segface-batch annotate photographs/ out/ --faces detect                  # any images: a row for each face
  segface-batch annotate manifest.csv out/ --checkpoint swinb_lapa_512     # columns uri, landmarks
  segface-batch annotate faces/ out/ --weights model_299.pt --checkpoint swinb_celeba_512
  segface-batch annotate s3://bucket/faces s3://bucket/out
  segface-batch annotate shards/ more.parquet out/                         # WebDataset tars, Parquet with images
  segface-batch annotate manifest.csv out/ --columns source,license        # copied into stats
  segface-batch annotate faces/ out/ --new                                 # later: also images added since
  RAY_ADDRESS=10.0.0.1:6379 segface-batch annotate s3://bucket/faces s3://bucket/out --num-gpus 1 --actors 8:8

The same command again finishes what is missing, and changes nothing when all is done.
"""

PLAN_EXAMPLES = """\
examples:
  segface-batch plan faces/
  segface-batch plan faces/ out/ --checkpoint mobilenet_celeba_512         # the arguments of annotate
  segface-batch plan s3://bucket/faces s3://bucket/out --prices prices.toml --json
  RAY_ADDRESS=10.0.0.1:6379 segface-batch plan s3://bucket/faces --num-gpus 1

prices.toml, in any currency:
  vcpu_hour = 0.04
  gpu_hour = 2.5
  gb_month = 0.023
  get_1000 = 0.0004
  put_1000 = 0.005

It annotates a sample as the job would, and writes nothing.  With several places the last one is the output, and only
what is missing there is forecast.
"""

VERIFY_EXAMPLES = """\
examples:
  segface-batch verify out/
  segface-batch verify s3://bucket/out --quick    # keys and counts, without reading every byte

Exit code 0 if every planned image is there exactly once and no file has changed, else 1.
"""

QUERY_EXAMPLES = """\
examples:
  segface-batch query out/ "select image_id, frac_hair from stats where status = 'ok' order by frac_hair desc limit 5"
  segface-batch query out/ "select error, count(*) as images from stats group by all"
  segface-batch query out/ "select image_id, px_eye_g from stats where px_eye_g > 400" --format csv > glasses.csv
  segface-batch query out/ "select * from masks semi join stats using (unit, seq)" --format parquet --to m.parquet
"""

DEMO_EXAMPLES = """\
examples:
  segface-batch demo
  segface-batch demo out/

It needs no internet connection.  The masks come from a small model trained on rendered faces: they show how
everything works, and are not data to keep.
"""

SHOW_EXAMPLES = """\
examples:
  segface-batch show out/                  # the first images on one sheet
  segface-batch show out/ some/face.jpg
"""

DOCTOR_EXAMPLES = """\
examples:
  segface-batch doctor faces/ out/
  segface-batch doctor s3://bucket/faces s3://bucket/out
  RAY_ADDRESS=10.0.0.1:6379 segface-batch doctor s3://bucket/faces s3://bucket/out --device cuda    # every node

With --device cuda it checks GPUs too.  It leaves nothing behind.  Exit code 0 if a run has what it needs, else 1.
"""

CHECKPOINTS_EXAMPLES = """\
examples:
  segface-batch checkpoints
  segface-batch checkpoints fetch swinb_celeba_512
  segface-batch checkpoints convert model_299.pt swinb.safetensors --checkpoint swinb_celeba_512
"""

COLUMNS_EXAMPLES = """\
examples:
  segface-batch columns out/
  segface-batch columns out/ --format json
"""

MEASURE_EXAMPLES = """\
examples:
  segface-batch measure LaPa/test/labels truth/ --class-table lapa
  segface-batch measure CelebAMask-HQ/CelebAMask-HQ-mask-anno truth/ --class-table celebamask-hq
  segface-batch measure labels/ truth/ --class-table id2label.json
  segface-batch measure out/masks measured/ --class-table out/_segface/run.json --image-column mask

The output has the columns of annotate, but for those that need the network (confidence) or the image (light).
"""

#: The groups of options of every run, and of one on images.
_OF_RUNS = (jobs.RERUNS, jobs.ERRORS, jobs.STORAGE)
_OF_IMAGES = (jobs.MODEL, jobs.FACES, jobs.DETECTION, jobs.INPUT, jobs.OUTPUT, jobs.WORKERS, *_OF_RUNS)

#: What the values of an option look like where its field names nothing better.
METAVARS: dict[Any, str] = {int: "N", float: "N", tuple[str, ...]: "NAME,...", tuple[int, int]: "MIN:MAX"}


class Command(argparse.ArgumentParser):
    """A command or verb; it answers a mistake in one line, with the nearest option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """End because of arguments that no option takes."""
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        self.error(f"unknown argument '{unknown[0]}'" + (f"; did you mean {near[0]}?" if near else ""))


def command_line() -> Command:
    """Parses into the options, `command` (the verb's name, or None) and `verb`, whose help explains a mistake."""
    program = Command(
        prog="segface-batch",
        description="Annotate face images at scale: SegFace masks and class statistics in Parquet, on Ray Data.",
        epilog=FIRST_JOB,
    )
    program.add_argument("--version", action="store_true", help="print the version")
    program.set_defaults(command=None, verb=program, debug=False)
    verbs = program.add_subparsers(title="commands", metavar="VERB")

    def verb(name: str, summary: str, examples: str) -> Command:
        sub = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=examples)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(command=name, verb=sub)
        return sub

    demo = verb("demo", "annotate embedded faces with an embedded model, offline", DEMO_EXAMPLES)
    demo.add_argument("out", nargs="?", default="segface-demo", help="folder for the output (default: %(default)s)")
    _annotate(verb("annotate", "write masks and statistics of every face in the input", ANNOTATE_EXAMPLES))
    _measure(verb("measure", "write the statistics of masks that exist, such as a data set's labels", MEASURE_EXAMPLES))
    _doctor(verb("doctor", "check permissions, clock, disks and versions before a run", DOCTOR_EXAMPLES))
    _plan(verb("plan", "forecast what annotate will take: time, bytes, bottleneck", PLAN_EXAMPLES))
    _verify(verb("verify", "check that an output holds every image exactly once", VERIFY_EXAMPLES))
    _query(verb("query", "query an output with SQL", QUERY_EXAMPLES))
    _columns(verb("columns", "list the columns of an output with unit, meaning and an example", COLUMNS_EXAMPLES))
    _show(verb("show", "draw images, masks and legend to a PNG", SHOW_EXAMPLES))
    _checkpoints(verb("checkpoints", "list, fetch or convert the published weights", CHECKPOINTS_EXAMPLES))
    return program


def job(chosen: argparse.Namespace) -> Job:
    """The job that the options describe; ValueError, FileNotFoundError or NotADirectoryError where it cannot work."""
    given = {each.name: getattr(chosen, each.name) for each in fields(Job) if hasattr(chosen, each.name)}
    given["input"] = tuple(chosen.input)
    return Job(**given)


def _annotate(sub: Command) -> None:
    _places(sub)
    _job_options(sub, *_OF_IMAGES)


def _measure(sub: Command) -> None:
    _places(sub, "a folder or URL prefix with masks, PNGs of class ids or CelebAMask-HQ's part masks (ID_CLASS.png); a "
                 ".tar, .parquet or manifest of them")  # fmt: skip
    (table,) = (each for each in fields(Job) if each.name == "class_table")
    help = table.metadata["help"].removesuffix(" (default: the input are images)")
    sub.add_argument(jobs.flag(table.name), metavar=table.metadata["metavar"], required=True, help=help)
    _job_options(sub, "max_pixels", "columns", "image_column", "actors", jobs.OUTPUT, *_OF_RUNS)


def _doctor(sub: Command) -> None:
    _places(sub)
    _job_options(sub, "device", jobs.STORAGE)


def _plan(sub: Command) -> None:
    sub.add_argument("places", nargs="+", metavar="PLACE", help="as for annotate: INPUT ... [OUTPUT]")
    sub.add_argument("--sample", metavar="N", type=int, default=64, help="images to try (default: %(default)s)")
    sub.add_argument("--prices", metavar="FILE", help="TOML or JSON file, as in docs/tuning.md (default: no prices)")
    sub.add_argument("--json", action="store_true", help="print JSON")
    _job_options(sub, *_OF_IMAGES)


def _verify(sub: Command) -> None:
    _output(sub)
    sub.add_argument("--quick", action="store_true", help="do not compare the files' sha256")


def _query(sub: Command) -> None:
    _output(sub)
    sub.add_argument("sql", help="one SELECT over stats, shapes, masks, faces and common, in DuckDB's SQL")
    sub.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table",
                     help="format of the answer; parquet needs --to (default: %(default)s)")  # fmt: skip
    sub.add_argument("--to", metavar="FILE", help="write the answer there (default: stdout)")
    sub.add_argument("--timeout", metavar="SECONDS", type=float, help="stop a query that takes longer (default: never)")
    sub.add_argument("--memory-limit", metavar="SIZE", default="2GB",
                     help="stop a query that needs more (default: %(default)s)")  # fmt: skip


def _columns(sub: Command) -> None:
    _output(sub)
    sub.add_argument("--format", choices=("table", "csv", "json"), default="table",
                     help="format of the list (default: %(default)s)")  # fmt: skip


def _show(sub: Command) -> None:
    _output(sub)
    sub.add_argument("image_id", nargs="?", help="one image, as in stats.image_id (default: a sheet of the first ones)")
    sub.add_argument("--face", metavar="N", type=int, help="number of the face (default: all faces)")
    sub.add_argument("--to", metavar="FILE", help="the PNG to write (default: ./IMAGE_ID-overlay.png or ./sheet.png)")


def _checkpoints(sub: Command) -> None:
    verbs = sub.add_subparsers(metavar="VERB")
    fetch = verbs.add_parser("fetch", help="fetch published weights into the Hugging Face cache")
    fetch.add_argument("name", help="the checkpoint")
    _job_options(fetch, "revision")
    fetch.set_defaults(command="checkpoints fetch", verb=fetch)
    convert = verbs.add_parser("convert", help="rewrite a published file as safetensors, a third of the size")
    convert.add_argument("source", help="the published file, such as model_299.pt")
    convert.add_argument("target", help="the .safetensors file to write")
    convert.add_argument("--checkpoint", metavar="NAME", required=True, help="which checkpoint it is")
    convert.set_defaults(command="checkpoints convert", verb=convert)


def _places(sub: Command, inputs: str = "") -> None:
    of = {each.name: each for each in fields(Job)}
    sub.add_argument("input", nargs="+", help=inputs or of["input"].metadata["help"])
    sub.add_argument("output", help=of["output"].metadata["help"])


def _output(sub: Command) -> None:
    """An output that is there, and how to reach it."""
    sub.add_argument("out", help="folder or URL of the output")
    _job_options(sub, jobs.STORAGE)


def _job_options(sub: Command, *only: str) -> None:
    """The options of Job's fields, by group; `only` those groups or fields where some are named."""
    annotations, groups = get_type_hints(Job), {}
    for each in fields(Job):
        group = each.metadata.get("group")
        if group is None or (only and not {group, each.name} & {*only}):
            continue
        if group not in groups:
            groups[group] = sub.add_argument_group(group)
        groups[group].add_argument(jobs.flag(each.name), dest=each.name, **_argument(each, annotations[each.name]))


def _argument(of: Field[Any], annotation: Any) -> dict[str, Any]:
    """What `add_argument` must know of a field."""
    about = of.metadata
    if annotation is bool:
        return {"action": "store_false" if of.default else "store_true", "help": about["help"]}
    if get_origin(annotation) in (Union, types.UnionType):  # X | None
        annotation = get_args(annotation)[0]
    help = about["help"] if "(default:" in about["help"] else f"{about['help']} (default: %(default)s)"
    argument = {"default": of.default, "help": help, "choices": about["choices"]}
    if about["choices"] is None:
        argument["metavar"] = about["metavar"] or METAVARS.get(annotation)
    return argument | {"type": {tuple[str, ...]: _names, tuple[int, int]: _span}.get(annotation, annotation)}


def _span(text: str) -> tuple[int, int]:
    least, colon, most = text.partition(":")
    try:
        return int(least), int(most if colon else least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not MIN:MAX, like 2:8") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
