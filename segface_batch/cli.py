"""The command line: `segface-batch VERB`.

Only the standard library is loaded until a command runs, so that help and mistakes are answered at once.

Data goes to stdout, everything else to stderr.  Exit codes: 0 done as asked, 1 the run failed, 2 a wrong command or
setting, 129, 130 or 143 interrupted.  They do not depend on whether anybody reads the output; only the answers of
`query`, `plan` and `checkpoints` have no other place than stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from segface_batch import catalog, streams
from segface_batch.command_line import command_line, job as job_of
from segface_batch.forecast import prices
from segface_batch.job import Job
from segface_batch.storage import configure, options
from segface_batch.storage.redact import redacted_text


def main(arguments: Sequence[str] | None = None) -> int:
    streams.secure()
    chosen, unknown = command_line().parse_known_args(arguments)
    if unknown:
        chosen.verb.refuse(unknown)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _stop)
    try:
        return COMMANDS[chosen.command](chosen)
    except (ValueError, FileNotFoundError, NotADirectoryError) as error:
        return _failed(2, error, chosen.debug)
    except (OSError, RuntimeError) as error:
        return _failed(1, error, chosen.debug)
    except KeyboardInterrupt as stop:
        again = "; the same command again goes on where it stopped" if chosen.command in RUNS else ""
        print(f"segface-batch: interrupted{again}", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


def _failed(code: int, error: Exception, debug: bool) -> int:
    """The exit code, once the reason is told."""
    if debug:
        import traceback

        traceback.print_exception(error)
    else:
        print(f"segface-batch: {redacted_text(str(error))}", file=sys.stderr)
    return code


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def _no_verb(chosen: argparse.Namespace) -> int:
    if not chosen.version:
        chosen.verb.print_help(sys.stderr)
        return 2
    from importlib.metadata import version

    with streams.data_on_stdout() as stdout:
        print(version("segface-batch"), file=stdout)
    return 0


def _annotate(chosen: argparse.Namespace) -> int:
    _run(job_of(chosen))
    return 0


def _plan(chosen: argparse.Namespace) -> int:
    chosen.input = chosen.places[:-1] or chosen.places
    chosen.output = chosen.places[-1] if len(chosen.places) > 1 else "memory://segface-plan"
    job = job_of(chosen)
    if chosen.sample < 1:
        raise ValueError(f"--sample {chosen.sample}: give a whole number from 1 up")
    known = prices.read(chosen.prices) if chosen.prices else None
    from segface_batch import progress
    from segface_batch.forecast.forecast import forecast
    from segface_batch.forecast.text import lines

    line = progress.Line(sys.stderr)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # as in _run
            found = forecast(job, chosen.sample, known, line)
    finally:
        line.end()
    if chosen.json:
        text = json.dumps(None if found is None else found.as_dict(), indent=1)
    else:
        text = "every image is annotated; nothing is left to plan" if found is None else "\n".join(lines(found))
    with streams.data_on_stdout() as stdout:
        print(text, file=stdout)
    return 0


def _run(job: Job) -> None:
    """Annotate, with progress and summary on stderr."""
    from segface_batch import progress
    from segface_batch.pipeline.driver import annotate
    from segface_batch.pipeline.summary import report

    if note := job.model.note:
        print(f"{job.model.name}: {note}", file=sys.stderr)
    line = progress.Line(sys.stderr)
    try:
        # Ray prints every traceback of its workers on stdout; the one that matters comes as an exception.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            summary = annotate(job, line)
    finally:
        line.end()
    print(report(summary), file=sys.stderr)


def _demo(chosen: argparse.Namespace) -> int:
    from segface_batch import demo

    _run(demo.job(chosen.out))
    from segface_batch.curate.query import query, write
    from segface_batch.curate.sheet import sheet

    for question, sql in demo.QUERIES:
        print(f"\n{question}")
        write(query(chosen.out, sql), "table", sys.stdout)
    print(f"\n{demo.score(chosen.out)}")
    print(f"\nlook at {sheet(chosen.out, Path(chosen.out) / 'sheet.png')}")
    return 0


def _doctor(chosen: argparse.Namespace) -> int:
    job = job_of(chosen)
    from segface_batch import doctor

    failed = 0
    for check in doctor.doctor(job):
        print(check, flush=True)
        failed += check.state == doctor.FAILED
    return 1 if failed else 0


def _verify(chosen: argparse.Namespace) -> int:
    _use_storage(chosen)
    from segface_batch.output import verify

    report = verify.verify(chosen.out, chosen.quick)
    print("\n".join(verify.lines(report, chosen.out)))
    return 0 if report.complete else 1


def _use_storage(chosen: argparse.Namespace) -> None:
    options.check(chosen.storage_options)
    configure(chosen.storage_options, chosen.s3_client)


def _query(chosen: argparse.Namespace) -> int:
    if chosen.to and Path(chosen.to).resolve().is_relative_to(Path(chosen.out).resolve()):
        raise ValueError(
            f"'{chosen.to}' lies inside the output, where readers would take it for a part; write elsewhere"
        )
    _use_storage(chosen)
    from segface_batch.curate.query import query, write

    rows = query(chosen.out, chosen.sql, timeout=chosen.timeout, memory_limit=chosen.memory_limit)
    if chosen.format == "parquet":
        write(rows, chosen.format, chosen.to or sys.stdout)
    elif chosen.to:
        with open(chosen.to, "x", encoding="utf-8") as file:
            write(rows, chosen.format, file)
    else:
        with streams.data_on_stdout() as stdout:
            if chosen.format != "table" and isinstance(stdout, io.TextIOWrapper):
                stdout.reconfigure(encoding="utf-8")  # as in a file
            width = shutil.get_terminal_size().columns if stdout.isatty() else None
            write(rows, chosen.format, stdout, width=width)
    return 0


def _columns(chosen: argparse.Namespace) -> int:
    _use_storage(chosen)
    from segface_batch.curate.columns import columns
    from segface_batch.curate.query import write

    found = columns(chosen.out)
    with streams.data_on_stdout() as stdout:
        write(found, chosen.format, stdout, limit=found.num_rows)
    return 0


def _show(chosen: argparse.Namespace) -> int:
    _use_storage(chosen)
    if chosen.image_id is None:
        if chosen.face is not None:
            raise ValueError(f"--face {chosen.face} is for one image: give its IMAGE_ID too")
        from segface_batch.curate.sheet import sheet

        print(sheet(chosen.out, Path(chosen.to or "sheet.png")))
        return 0
    from segface_batch.curate.show import file_name, show

    target = Path(chosen.to or file_name(chosen.image_id))
    print(show(chosen.out, chosen.image_id, target, chosen.face))
    return 0


def _list_checkpoints(chosen: argparse.Namespace) -> int:
    rows = [("name", "backbone", "pixels", "data set", "classes", "mean F1", "landmarks", "weights")]
    for entry in catalog.CHECKPOINTS.values():
        f1 = "-" if entry.f1 is None else f"{entry.f1:.2f}"
        classes = str(len(entry.dataset.classes))
        needs = entry.dataset.landmarks or "-"
        where = "hub" if entry.asset is None else "in the package"
        rows.append((entry.name, entry.backbone, str(entry.resolution), entry.dataset.name, classes, f1, needs, where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    with streams.data_on_stdout() as stdout:
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print(line.rstrip(), file=stdout)
    return 0


def _fetch_checkpoint(chosen: argparse.Namespace) -> int:
    checkpoint = catalog.find(chosen.name)
    from segface_batch.model import weights

    path = weights.locate(checkpoint, None, chosen.revision)
    print(f"{weights.sha256(path)}  {path}")
    return 0


def _convert_checkpoint(chosen: argparse.Namespace) -> int:
    checkpoint = catalog.find(chosen.checkpoint)
    from segface_batch.model import weights

    source, target = Path(chosen.source), Path(chosen.target)
    weights.convert(checkpoint, source, target)
    print(f"{target}: {target.stat().st_size / 2**20:.0f} MB, {source} has {source.stat().st_size / 2**20:.0f} MB")
    return 0


#: The verbs that run a job.
RUNS = ("annotate", "demo", "measure")

#: What each verb does.
COMMANDS = {
    None: _no_verb,
    "demo": _demo,
    "annotate": _annotate,
    "measure": _annotate,
    "columns": _columns,
    "doctor": _doctor,
    "plan": _plan,
    "verify": _verify,
    "query": _query,
    "show": _show,
    "checkpoints": _list_checkpoints,
    "checkpoints fetch": _fetch_checkpoint,
    "checkpoints convert": _convert_checkpoint,
}


if __name__ == "__main__":
    sys.exit(main())
