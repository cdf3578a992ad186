"""Some mutants of `tests.programs.fuzz_inputs`, which tries many."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.programs import fuzz_inputs


@pytest.mark.parametrize("name", fuzz_inputs.SEEDS)
def test_a_damaged_input_is_refused_in_one_line_or_planned_and_fetched(tmp_path: Path, name: str) -> None:
    outcomes = set()
    for number in range(12):
        rng = random.Random(number)
        file = tmp_path / str(number) / name
        file.parent.mkdir()
        file.write_bytes(fuzz_inputs.mutated(fuzz_inputs.SEEDS[name](rng), rng))
        outcomes.add(fuzz_inputs.tried(file, tmp_path / f"plan {number}")[0])
    assert "planned" in outcomes


def test_a_footer_that_pyarrow_does_not_survive_is_damage(tmp_path: Path) -> None:
    rng = random.Random(3497)  # found so
    assert rng.choice(list(fuzz_inputs.SEEDS)) == "faces.parquet"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "faces.parquet").write_bytes(fuzz_inputs.mutated(fuzz_inputs.SEEDS["faces.parquet"](rng), rng))
    assert fuzz_inputs.tried(tmp_path / "in", tmp_path / "plan") == ("planned", {f"{tmp_path}/in/faces.parquet"})
