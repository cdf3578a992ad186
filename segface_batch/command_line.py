"""The words of the command line: verbs, options, help and examples, on the standard library alone."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from segface_batch import catalog, job as jobs
from segface_batch.model import engine as engines
from segface_batch.storage import options

FIRST_JOB = """\
a look, without any download:
  segface-batch demo

first job:
  segface-batch annotate faces/ out/
  segface-batch query out/ "select * from stats limit 5"
"""

ANNOTATE_EXAMPLES = """\
examples:
  segface-batch annotate faces/ out/
  segface-batch annotate faces/ out/ --checkpoint mobilenet_celeba_512     # much faster on a CPU
  segface-batch annotate faces/ out/ --decode fast                         # large JPEGs, not to the last bit
  segface-batch annotate photographs/ out/ --faces detect                   # any images: a row for each face
  segface-batch annotate manifest.csv out/ --checkpoint swinb_lapa_512     # columns uri, landmarks
  segface-batch annotate faces/ out/ --weights model_299.pt --checkpoint swinb_celeba_512
  segface-batch annotate s3://bucket/faces s3://bucket/out
  segface-batch annotate shards/ more.parquet out/                         # WebDataset tars, Parquet with images
  segface-batch annotate manifest.csv out/ --columns source,license        # these are repeated in stats
  segface-batch annotate faces/ out/ --new                                 # later: images added since
  RAY_ADDRESS=10.0.0.1:6379 segface-batch annotate s3://bucket/faces s3://bucket/out --num-gpus 1 --actors 8:8

The same command again finishes what is missing and changes nothing when all is done.
"""

PLAN_EXAMPLES = """\
examples:
  segface-batch plan faces/
  segface-batch plan faces/ out/ --checkpoint mobilenet_celeba_512         # the words of annotate
  segface-batch plan s3://bucket/faces s3://bucket/out --prices prices.toml --json
  RAY_ADDRESS=10.0.0.1:6379 segface-batch plan s3://bucket/faces --num-gpus 1

prices.toml, in any currency: vcpu_hour = 0.04  gpu_hour = 2.5  gb_month = 0.023  get_1000 = 0.0004  put_1000 = 0.005,
each on a line of its own.

A sample is parsed as the job would do it; nothing is written.  Of several places the last is the output, of which only
what is left to do is planned.
"""

BENCH_EXAMPLES = """\
examples:
  segface-batch bench
  segface-batch bench --checkpoint mobilenet_celeba_512 --weights model_299.pt
  segface-batch bench --quality

Only the ratios mean something on another machine, and only on one that does nothing else meanwhile.
"""

VERIFY_EXAMPLES = """\
examples:
  segface-batch verify out/
  segface-batch verify s3://bucket/out --quick    # keys and counts, without reading every byte

Exit code 0: every planned image is there exactly once and the files are those that were written; else 1.
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

It needs no network.  The masks are those of a small model trained on rendered faces: good for seeing how all works,
not for data that you keep.
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

It leaves nothing behind.  Exit code 0: a run has what it needs; else 1.
"""

CHECKPOINTS_EXAMPLES = """\
examples:
  segface-batch checkpoints
  segface-batch checkpoints fetch swinb_celeba_512
  segface-batch checkpoints convert model_299.pt swinb.safetensors --checkpoint swinb_celeba_512
"""


class Parser(argparse.ArgumentParser):
    """Answers a mistake in one line, with the nearest option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """End because of arguments that nobody takes."""
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        self.error(f"unknown argument '{unknown[0]}'" + (f"; did you mean {near[0]}?" if near else ""))


def command_line() -> Parser:
    """Parses into settings, `command` (a verb, or None) and `explains`, the parser whose help is meant."""
    parser = Parser(
        prog="segface-batch",
        description="Annotate face images at scale: SegFace masks and class statistics in Parquet, on Ray Data.",
        epilog=FIRST_JOB,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.set_defaults(command=None, explains=parser, debug=False)
    verbs = parser.add_subparsers(title="commands", metavar="VERB")

    def verb(name: str, summary: str, examples: str) -> Parser:
        sub = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=examples)
        sub.add_argument("--debug", action="store_true", help="on an error show the whole traceback")
        sub.set_defaults(command=name, explains=sub)
        return sub

    demo = verb("demo", "run all of it on embedded faces with an embedded model, offline", DEMO_EXAMPLES)
    demo.add_argument("out", nargs="?", default="segface-demo", help="folder for the output (default: %(default)s)")
    _annotate_options(verb("annotate", "parse every image of a folder or manifest", ANNOTATE_EXAMPLES))
    doctor = verb("doctor", "check permissions, clock, disks and versions before a run", DOCTOR_EXAMPLES)
    doctor.add_argument("input", nargs="+", help="as for annotate")
    doctor.add_argument("output", help="as for annotate")
    doctor.add_argument("--device", choices=jobs.DEVICES, default="auto",
                        help="cuda: check the GPUs too (default: %(default)s)")  # fmt: skip
    _storage_options(doctor)
    plan = verb("plan", "say what annotate would take: time, bytes, bottleneck", PLAN_EXAMPLES)
    plan.add_argument("places", nargs="+", metavar="PLACE", help="as of annotate: input, ..., output (default: none)")
    plan.add_argument("--sample", metavar="N", type=int, default=64, help="images to try (default: %(default)s)")
    plan.add_argument("--prices", metavar="FILE", help="TOML or JSON with prices (see below)")
    plan.add_argument("--json", action="store_true", help="print JSON")
    _job_options(plan)
    bench = verb("bench", "time the steps and the pipeline on this machine", BENCH_EXAMPLES)
    bench.add_argument("--checkpoint", metavar="NAME", default=catalog.DEMO_CHECKPOINT,
                       help="which network (default: %(default)s)")  # fmt: skip
    bench.add_argument("--weights", metavar="FILE", help="its weights, a path or URL (default: the published file)")
    bench.add_argument("--images", metavar="N", type=int, help="images for the pipeline (default: 100 per core)")
    bench.add_argument("--quality", action="store_true",
                       help="instead, how far the masks of each way are from torch's in float32")  # fmt: skip
    bench.add_argument("--json", action="store_true", help="print JSON")
    verify = verb("verify", "check that every image is in an output exactly once", VERIFY_EXAMPLES)
    verify.add_argument("out", help="folder or URL of the output")
    verify.add_argument("--quick", action="store_true", help="do not compare the files' sha256")
    _storage_options(verify)
    _query_options(verb("query", "ask the output with SQL (views: stats, masks)", QUERY_EXAMPLES))
    show = verb("show", "draw images, masks and legend to a PNG", SHOW_EXAMPLES)
    _storage_options(show)
    show.add_argument("out", help="folder or URL of the output")
    show.add_argument("image_id", nargs="?", help="one image, as in stats.image_id (default: a sheet of the first)")
    show.add_argument("--face", metavar="N", type=int, help="number of the face (default: all faces)")
    show.add_argument(
        "--to", metavar="FILE", help="the PNG to write (default: IMAGE_ID-overlay.png or sheet.png, here)"
    )
    _checkpoint_verbs(verb("checkpoints", "list, fetch or convert the published weights", CHECKPOINTS_EXAMPLES))
    return parser


def _annotate_options(sub: Parser) -> None:
    sub.add_argument("input", nargs="+",
                     help="folder or URL prefix with images, .tar or .parquet files in it; such a file; or a "
                          "manifest: .txt, .csv or .parquet with a column uri")  # fmt: skip
    sub.add_argument("output", help="folder or URL prefix for the output; made if absent")
    _job_options(sub)


def _job_options(sub: Parser) -> None:
    model = sub.add_argument_group("model")
    model.add_argument("--checkpoint", metavar="NAME", default=catalog.DEFAULT_CHECKPOINT,
                       help="published checkpoint, see 'segface-batch checkpoints' (default: %(default)s)")  # fmt: skip
    model.add_argument("--weights", metavar="FILE",
                       help="its weights, a path or URL (default: fetched from the Hugging Face hub)")  # fmt: skip
    model.add_argument("--weights-sha256", metavar="HEX", help="refuse other weights (default: not checked)")
    model.add_argument("--revision", help="commit or tag of the hub's repository (default: its newest)")
    model.add_argument("--device", choices=jobs.DEVICES, default="auto",
                       help="where the network runs (default: %(default)s: GPUs where Ray has some)")  # fmt: skip
    model.add_argument("--precision", choices=jobs.PRECISIONS, default="fp32",
                       help="bf16 is faster on a device that has it, and not exact (default: %(default)s)")  # fmt: skip
    model.add_argument("--engine", choices=engines.ENGINES, default="auto",
                       help="what runs the network; openvino is for CPUs and needs the extra of that name "
                            "(default: %(default)s: openvino where it is installed and no GPU is)")  # fmt: skip
    model.add_argument("--compile", action="store_true",
                       help="compile the network with torch, if the job is long enough for it")  # fmt: skip
    model.add_argument("--network", metavar="MODULE:FACTORY",
                       help="a network of your own, see docs/networks.md (default: SegFace)")  # fmt: skip
    faces = sub.add_argument_group("faces")
    faces.add_argument("--faces", choices=jobs.FACES, default="whole",
                       help="the images are ready crops (whole), photographs to find faces in (detect), or "
                            "of the face at given landmarks or box (given) (default: %(default)s)")  # fmt: skip
    faces.add_argument("--detector", choices=jobs.DETECTORS, default="mtcnn",
                       help="finds the faces; yunet needs the extra of that name (default: %(default)s)")  # fmt: skip
    faces.add_argument("--min-face", metavar="PIXELS", type=int, default=jobs.DEFAULT_MIN_FACE,
                       help="smaller faces are left out (default: %(default)s)")  # fmt: skip
    faces.add_argument("--min-score", metavar="S", type=float, default=jobs.DEFAULT_MIN_SCORE,
                       help="so are those that the detector is less sure of (default: %(default)s)")  # fmt: skip
    faces.add_argument("--max-faces", metavar="N", type=int, help="only the largest N of an image (default: all)")
    faces.add_argument("--mask-space", choices=jobs.MASK_SPACES, default="crop",
                       help="masks as parsed (crop), or in pixels of the upright image (image) "
                            "(default: %(default)s)")  # fmt: skip
    work = sub.add_argument_group("work")
    work.add_argument("--actors", metavar="MIN:MAX", type=_span, help="parser actors (default: all CPUs or GPUs)")
    work.add_argument("--threads", metavar="N", type=int,
                      help="CPU threads of an actor (default: 1, with a GPU 3/4 of its CPUs, at most 16)")  # fmt: skip
    work.add_argument("--num-gpus", metavar="N", type=float, help="GPUs of an actor (default: 1 where Ray has GPUs)")
    work.add_argument("--batch-size", metavar="N", type=int,
                      help="images in the network at once (default: 1, with a GPU 16)")  # fmt: skip
    work.add_argument("--max-pixels", metavar="N", type=int, default=jobs.DEFAULT_MAX_PIXELS,
                      help="larger images become errors 'too_large' (default: %(default)s)")  # fmt: skip
    work.add_argument("--decode", choices=jobs.DECODE, default="exact",
                      help="near: a resize that is hardly ever off, by a grey level, in a third of the time; fast: "
                           "of JPEGs of twice the checkpoint's pixels only a part, which changes masks a little "
                           "(default: %(default)s)")  # fmt: skip
    work.add_argument("--part-rows", metavar="N", type=int, default=jobs.DEFAULT_PART_ROWS,
                      help="images in one Parquet file (default: %(default)s)")  # fmt: skip
    what = sub.add_argument_group("input")
    what.add_argument("--columns", metavar="NAME,...", type=_words, default=(),
                      help="columns of the manifest that stats repeats")  # fmt: skip
    what.add_argument("--image-column", metavar="NAME", help="column of Parquet files that has the images")
    again = sub.add_argument_group("again")
    again.add_argument("--new", action="store_true", help="look for images added to the input, as more parts")
    again.add_argument("--retry-errors", action="store_true", help="try images with errors once more")
    again.add_argument("--takeover", action="store_true", help="stop another run on this output and go on from it")
    limits = sub.add_argument_group("errors")
    limits.add_argument("--max-errors", metavar="N", type=int, help="stop when more images have errors")
    limits.add_argument("--allow-unreadable", action="store_true",
                        help="record errors also where all images of a unit are forbidden or unfetchable, which "
                             "otherwise stops the run")  # fmt: skip
    _storage_options(sub)


def _storage_options(sub: argparse.ArgumentParser) -> None:
    storage = sub.add_argument_group("storage")
    storage.add_argument("--storage-options", metavar="JSON",
                         help="arguments of fsspec's file systems, or a file with them, which may hold secrets "
                              "(default: the AWS environment)")  # fmt: skip
    storage.add_argument("--s3-client", choices=options.S3_CLIENTS, default="s3fs",
                         help="obstore is faster, verifies no checksums, needs the extra fast-s3 "
                              "(default: %(default)s)")  # fmt: skip


def _query_options(sub: Parser) -> None:
    sub.add_argument("out", help="folder or URL of the output")
    _storage_options(sub)
    sub.add_argument("sql", help="one SELECT over stats and masks, in DuckDB's SQL")
    sub.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table",
                     help="form of the answer (default: %(default)s; parquet needs --to)")  # fmt: skip
    sub.add_argument("--to", metavar="FILE", help="write the answer there (default: stdout)")
    sub.add_argument("--timeout", metavar="SECONDS", type=float, help="stop a query that takes longer (default: never)")
    sub.add_argument("--memory-limit", metavar="SIZE", default="2GB",
                     help="stop a query that needs more (default: %(default)s)")  # fmt: skip


def _checkpoint_verbs(sub: Parser) -> None:
    verbs = sub.add_subparsers(metavar="VERB")
    fetch = verbs.add_parser("fetch", help="fetch published weights into the Hugging Face cache")
    fetch.add_argument("name", help="checkpoint")
    fetch.add_argument("--revision", help="commit or tag of the hub's repository (default: its newest)")
    fetch.set_defaults(command="checkpoints fetch", explains=fetch)
    convert = verbs.add_parser("convert", help="rewrite a published file as safetensors, a third of the size")
    convert.add_argument("source", help="model_299.pt")
    convert.add_argument("target", help="the .safetensors file to write")
    convert.add_argument("--checkpoint", metavar="NAME", required=True, help="which checkpoint it is")
    convert.set_defaults(command="checkpoints convert", explains=convert)


def _span(text: str) -> tuple[int, int]:
    least, colon, most = text.partition(":")
    try:
        return int(least), int(most if colon else least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no MIN:MAX, like 2:8") from None


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
