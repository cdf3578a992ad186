from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segface_batch.curate.evaluate import counted_pairs, evaluate, f1
from tests.curate import small_output
from tests.curate.small_output import FACE, NAMES, SECOND, mask


def test_f1_is_twice_the_hits_over_true_and_found() -> None:
    truth = np.array([[0, 0, 1], [1, 1, 2]], np.uint8)
    found = np.array([[0, 1, 1], [1, 2, 2]], np.uint8)
    pairs = counted_pairs(truth, found, 4)
    assert pairs.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert f1(pairs)[:3].tolist() == [2 * 1 / 3, 2 * 2 / 6, 2 * 1 / 3]
    assert math.isnan(f1(pairs)[3])


def test_pixels_without_a_class_do_not_count() -> None:
    truth = np.array([[0, 1, 255, 255, 1]], np.uint8)
    found = np.array([[0, 0, 0, 255, 255]], np.uint8)
    assert counted_pairs(truth, found, 2).tolist() == [[1, 0], [1, 0]]


def test_masks_are_compared_with_the_truth_of_the_same_name(tmp_path: Path) -> None:
    out, truth = tmp_path / "out", tmp_path / "truth"
    small_output.write_part(
        out,
        0,
        [
            small_output.row("a/one.png", "a/one.png", 0, FACE),
            small_output.row("two.jpg", "two.jpg", 1, SECOND),
            small_output.row("broken.png", "broken.png", 2),
            small_output.row("no_truth.png", "no_truth.png", 3, FACE),
            small_output.row("no_class.png", "no_class.png", 4, FACE),
        ],
    )
    (truth / "a").mkdir(parents=True)
    larger = mask(("hair", 0, 0, 8, 4), ("face_lr_rr", 2, 2, 6, 8), ("nose", 3, 4, 5, 6)).repeat(2, 0).repeat(2, 1)
    Image.fromarray(larger).save(truth / "a" / "one.png")
    Image.fromarray(SECOND).save(truth / "two.png")
    Image.fromarray(SECOND).save(truth / "broken.png")
    Image.fromarray(np.full_like(SECOND, 255)).save(truth / "no_class.png")
    agreement = evaluate(str(out), truth)
    assert agreement.right == {"a/one.png": 1 - 8 / 64, "two.jpg": 1.0}
    assert {name: value for name, value in agreement.f1.items() if not math.isnan(value)} == {
        "background": 2 * 16 / (16 + 24),
        "face_lr_rr": 1.0,
        "nose": 1.0,
        "hair": 2 * 16 / (24 + 16),
    }
    assert list(agreement.f1) == list(NAMES)
    assert agreement.mean_f1 == pytest.approx((0.8 + 1 + 1 + 0.8) / 4)


def test_masks_that_are_not_square_are_compared_at_their_size(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small_output.write_part(out, 0, [small_output.row("a.png", "a.png", 0, FACE[:4])])
    Image.fromarray(FACE[:4].repeat(3, 0).repeat(3, 1)).save(tmp_path / "a.png")
    assert evaluate(str(out), tmp_path).right == {"a.png": 1.0}


@pytest.mark.parametrize("faces", ["detect", "given"])
def test_masks_of_faces_are_not_scored_by_label_maps_of_images(tmp_path: Path, faces: str) -> None:
    out = tmp_path / "out"
    small_output.write_part(out, 0, [small_output.row("a.png", "a.png", 0, FACE)])
    part = out / "stats" / "part-00000.parquet"
    table = pq.read_table(part)
    run = json.loads(table.schema.metadata[b"segface_batch"])
    run["settings"]["faces"] = faces
    pq.write_table(table.replace_schema_metadata({"segface_batch": json.dumps(run)}), part)
    with pytest.raises(ValueError, match="are those of faces, not of whole images; evaluate one of ready crops"):
        evaluate(str(out), tmp_path)


def test_an_output_without_any_truth_is_refused(tmp_path: Path) -> None:
    out = small_output.small_output(tmp_path)
    with pytest.raises(ValueError, match=r"no image of .* has a truth in"):
        evaluate(str(out), tmp_path / "nowhere")
