"""pipelines/benchmarks: how rounds are paired, what measures are compared with, and that every program says what it
answers and how it is called."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from pipelines.benchmarks import confidence, corpus, measures, queries
from pipelines.benchmarks.rounds import paired, side_by_side, timed
from segface_batch import catalog
from segface_batch.model import weights
from segface_batch.output import schema
from segface_batch.output.reader import open_output

FOLDER = Path(__file__).parents[2] / "pipelines" / "benchmarks"

#: What programs share.
HELPERS = {"__init__", "corpus", "modes", "rounds"}

PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)


def test_ways_take_turns_and_a_ratio_is_the_median_of_those_of_each_round(capsys: pytest.CaptureFixture[str]) -> None:
    called: list[str] = []
    seconds = {"a": iter([9.0, 1.0, 2.0, 8.0]), "b": iter([7.0, 2.0, 2.0, 2.0]), "c": iter([5.0, 0.0, 2.0, 0.0])}

    def way(name: str) -> float:
        called.append(name)
        return next(seconds[name])

    found = paired({name: lambda name=name: way(name) for name in seconds}, 3)
    assert "".join(called) == "abcabcabcabc"
    assert found.first == {"a": 9.0, "b": 7.0, "c": 5.0}
    assert found.seconds == {"a": [1.0, 2.0, 8.0], "b": [2.0, 2.0, 2.0], "c": [0.0, 2.0, 0.0]}
    assert found.median("a") == 2.0
    assert found.ratio("a", "b") == 1.0
    assert found.ratio("a", "b", "c") == 0.5
    assert capsys.readouterr().err.splitlines()[0] == "warm-up: a 9 s, b 7 s, c 5 s"


def test_without_a_warm_up_every_round_counts() -> None:
    assert paired({"a": lambda: 1.0}, 2, warm_up=False).seconds == {"a": [1.0, 1.0]}


def test_seconds_are_per_image() -> None:
    ticks = iter([10.0, 16.0])
    assert timed(list, images=3, clock=lambda: next(ticks))() == 2.0


def sleeper(seconds: float):
    import time

    return lambda: time.sleep(seconds)


def test_processes_side_by_side_take_as_long_as_the_slowest() -> None:
    assert 0.3 <= side_by_side(sleeper, [(0.0,), (0.3,)]) < 1.5


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_asks_a_question_and_names_its_command(name: str) -> None:
    words = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    question, command, *_ = words.split("\n\n")
    assert question.endswith("?")
    assert command.strip().startswith(f"python -m pipelines.benchmarks.{name}")


def test_measures_on_true_maps_follow_the_scene() -> None:
    """Six faces that are turned and tilted both ways, with and without hats."""
    seeds, checkpoint = (1000104, 1000179, 1000062, 1000076, 1000140, 1000170), catalog.find("demo-synthetic")
    faces = [measures.rendered(seed, checkpoint, side=128) for seed in seeds]
    true = np.array([face.truth for face in faces])
    found = np.array([measures.measured(face.labels, face.crop) for face in faces])
    for name, own, other in zip(measures.TRUTHS, found.T, true.T, strict=True):
        count, pearson, _ = measures.correlations(own, other)
        assert (count, pearson > 0.8) == (len(seeds), True), (name, pearson)


def test_the_smaller_eye_is_the_left_one_in_the_picture_for_scene_and_measure() -> None:
    face = measures.rendered(1000165, catalog.find("demo-synthetic"))
    for left, right, *_ in (face.truth, measures.measured(face.labels, face.crop)):
        assert left < 0.9 * right


def test_correlations_leave_nulls_out_and_spearman_goes_by_ranks() -> None:
    found, true = np.array([1.0, 2.0, np.nan, 3.0]), np.array([-1.0, -10.0, 7.0, -100.0])
    count, pearson, spearman = measures.correlations(found, true)
    assert (count, spearman) == (3, pytest.approx(-1))
    assert pearson == pytest.approx(-99 / (2 * 5994) ** 0.5)  # deviations: -1, 0, 1 and 36, 27, -63


def test_the_area_under_the_curve_counts_ties_half() -> None:
    assert measures.auc(np.array([1, 2, 2, 3], np.uint8), np.array([False, False, True, True])) == 3.5 / 4


def test_questions_to_a_made_output_have_the_same_answer_from_query_and_duckdb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries.write(tmp_path / "out-300", 300, part_rows=128)
    queries.main("300", "1", str(tmp_path))
    told = capsys.readouterr().out.splitlines()
    starts = ["stats: ", "shapes: ", "masks: ", "stats, ", "faces, ", "common, ", "segface-batch query "]
    assert [start for line, start in zip(told, starts, strict=True) if line.startswith(start)] == starts


def test_made_rows_have_the_schema_of_an_output_and_statistics_that_fit_together(tmp_path: Path) -> None:
    queries.write(tmp_path, 300, part_rows=128)
    output = open_output(str(tmp_path))
    assert output.parts == tuple(f"part-{number:05d}.parquet" for number in range(3))
    stats = output.stats.to_table()
    assert stats.schema.equals(schema.stats_schema(queries.DATASET))
    assert set(stats["status"].to_pylist()) == {schema.OK, schema.NO_FACE, schema.ERROR}
    for row in stats.to_pylist():
        assert row["uri"].endswith(f"/{row['unit'] * 64 + row['seq']}.jpg")
        if row["status"] == schema.OK:
            assert row["frac_hair"] == pytest.approx(row["px_hair"] / row["mask_pixels"])
            assert (row["conf_hat"] is None) == (row["px_hat"] == 0)


@pytest.mark.parametrize("ways", [confidence.on_torch, confidence.on_openvino])
def test_the_ways_to_label_differ_in_ties_at_most(ways: confidence.Ways) -> None:
    checkpoint = catalog.find("demo-synthetic")
    path = weights.locate(checkpoint)
    pixels = corpus.pixels(1, checkpoint.resolution)
    found = {way: parse(pixels) for way, parse in ways(checkpoint, path, weights.load(checkpoint, path)).items()}
    for labels in found.values():
        assert labels.dtype == np.uint8
        assert (labels == found[confidence.CONFIDENCE]).mean() > 0.9999
