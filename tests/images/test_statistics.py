"""Statistics of masks that a reader can work out, and the columns that follow from the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segface_batch.catalog import CELEBAMASK_HQ, HELEN, LAPA, Dataset, FaceClass
from segface_batch.images.confidence import Confidence
from segface_batch.images.masks import OUTSIDE
from segface_batch.images.measures import CroppedFace
from segface_batch.images.shapes import BOTTOM, LEFT, RIGHT, TOP
from segface_batch.images.statistics import SHAPES, STATISTICS, STATS, Mask, columns, fields, measured
from tests.images.hand_made import FRONTAL, HAND_MADE, HandMade

#: Columns of what a mask alone does not tell.
FROM_NETWORK = ("confidence", "low_px", "entropy", *(f"{each}_{name}" for each in ("conf", "margin") for name in
                CELEBAMASK_HQ.class_names))  # fmt: skip
FROM_PIXELS = ("skin_light", "skin_light_spread", "skin_dark", "skin_bright", "skin_light_balance", "sharpness")

BARE = Dataset("bare", tuple(FaceClass(name, name, (0, 0, 0)) for name in ("background", "fruit", "leaf")), "")


def mask(
    labels: np.ndarray,
    dataset: Dataset = CELEBAMASK_HQ,
    pixels: np.ndarray | None = None,
    confidence: Confidence | None = None,
) -> Mask:
    """A mask that is its own image."""
    height, width = labels.shape
    return Mask(labels, CroppedFace(labels, dataset, np.eye(2, 3), (width, height), pixels), confidence)


def of(each: HandMade) -> dict[str, Any]:
    labels = each.labels
    return measured(Mask(labels, CroppedFace(labels, CELEBAMASK_HQ, np.array(each.transform, float), each.size)))


@pytest.mark.parametrize("each", HAND_MADE, ids=lambda each: each.name)
def test_every_statistic_of_a_hand_made_mask_is_what_was_worked_out_by_hand(each: HandMade) -> None:
    found = of(each)
    assert {name: found.pop(name) for name in (*FROM_NETWORK, *FROM_PIXELS)} == dict.fromkeys(
        (*FROM_NETWORK, *FROM_PIXELS)
    )
    expected = each.expected()
    assert found.keys() == expected.keys()
    assert {name: value for name, value in found.items() if value != pytest.approx(expected[name], abs=1e-9)} == {}


@pytest.mark.parametrize("each", HAND_MADE, ids=lambda each: each.name)
def test_a_mirrored_mask_gives_the_mirrored_row(each: HandMade) -> None:
    """Left and right change places, and which class is called l_eye does not matter."""
    (a, b, c), (d, e, f) = each.transform
    labels, width = np.ascontiguousarray(each.labels[:, ::-1]), each.size[0]
    # The photograph is mirrored as well: x' = width - (a (40 - x) + b y + c).
    turned = np.array(((a, -b, width - 40 * a - c), (-d, e, f + 40 * d)))
    found = measured(Mask(labels, CroppedFace(labels, CELEBAMASK_HQ, turned, each.size)))
    assert found == pytest.approx(mirrored(of(each)), abs=1e-9)


def mirrored(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a mask of 40 columns, from that of its mirror image."""
    swapped = {"margin_left": "margin_right", "eye_open_left": "eye_open_right"}
    swapped |= {f"left_{name}": f"right_{name}" for name in CELEBAMASK_HQ.class_names}
    swapped |= {right: left for left, right in swapped.items()}
    found = {name: row[swapped.get(name, name)] for name in row}
    for name, value in found.items():
        if value is None:
            continue
        if name in ("roll", "yaw_proxy"):
            found[name] = -value
        elif name.startswith(("left_", "right_", "x_")):
            found[name] = 40 - value
        elif name.startswith("sides_"):
            left, right = value & LEFT > 0, value & RIGHT > 0
            found[name] = value & (TOP | BOTTOM) | right * LEFT | left * RIGHT
        elif name == "swapped":
            # A pair is swapped in one of the two, where both are seen, or one beside the middle.
            pairs = (("l_brow", "r_brow"), ("l_eye", "r_eye"), ("l_ear", "r_ear"))
            seen = sum(1 << bit for bit, pair in enumerate(pairs) if any(row[f"px_{name}"] for name in pair))
            found[name] = value ^ seen
    return found


@pytest.mark.parametrize("dataset", [LAPA, HELEN], ids=lambda dataset: dataset.name)
def test_the_same_face_has_the_same_measures_in_every_class_table(dataset: Dataset) -> None:
    """But for the head's cover, as these tables have neither hat nor cloth."""
    bust = {CELEBAMASK_HQ.class_names.index(name) for name in ("cloth", "neck")}
    labels = HandMade("frontal", FRONTAL).labels
    theirs = np.zeros_like(labels)
    for label, face_class in enumerate(CELEBAMASK_HQ.classes):
        if (found := dataset.ids(face_class.common)) and label not in bust:
            both = CELEBAMASK_HQ.ids(face_class.common)
            theirs[labels == label] = found[both.index(label)]
    whole = [each.name for each in STATISTICS if not each.per_class]
    ours, others = measured(mask(labels)), measured(mask(theirs, dataset))
    assert others["head_cover"] is None
    assert {name: others[name] for name in whole if name != "head_cover"} == {
        name: ours[name] for name in whole if name != "head_cover"
    }


def test_a_class_table_without_common_names_has_areas_and_shapes_and_no_measures() -> None:
    labels = np.zeros((4, 6), np.uint8)
    labels[1:3, 2:5] = 2
    found = measured(mask(labels, BARE))
    whole = [each.name for each in STATISTICS if not each.per_class]
    assert {name: found[name] for name in whole if found[name] is not None} == {
        "mask_pixels": 24, "face_px": 0, "mask_width": 6, "mask_height": 4, "swapped": 0,
    }  # fmt: skip
    assert (found["px_leaf"], found["frac_leaf"], found["x_leaf"], found["right_leaf"]) == (6, 0.25, 3.5, 5)


def test_one_eye_alone_is_left_or_right_by_the_side_of_the_nose_that_it_is_on() -> None:
    eye, nose, skin = ("l_eye", 22, 16, 26, 18), ("nose", 18, 18, 22, 24), ("skin", 10, 8, 30, 34)
    assert of(HandMade("", (skin, eye, nose)))["swapped"] == 2
    assert of(HandMade("", (skin, ("l_eye", 12, 16, 16, 18), nose)))["swapped"] == 0
    assert of(HandMade("", (eye,)))["swapped"] == 2  # nothing else: right of the mask's middle


def test_light_is_that_of_the_skin_on_both_sides_of_the_nose() -> None:
    labels = HandMade("frontal", FRONTAL).labels
    pixels = np.full((40, 40, 3), 255, np.uint8)  # background and hair do not count
    # Skin is 219 px on each side of x = 20.
    skin = labels == CELEBAMASK_HQ.class_names.index("skin")
    pixels[:, :20][skin[:, :20]] = 100
    pixels[:, 20:][skin[:, 20:]] = 140
    found = measured(mask(labels, pixels=pixels))
    assert [found[name] for name in FROM_PIXELS[:5]] == pytest.approx([120, 20, 0, 0, 40 / 240])
    pixels[:, :20][skin[:, :20]] = 5
    pixels[:, 20:][skin[:, 20:]] = 250
    found = measured(mask(labels, pixels=pixels))
    assert [found[name] for name in FROM_PIXELS[:5]] == pytest.approx([127.5, 122.5, 0.5, 0.5, 245 / 255])
    pixels[skin] = 6, 6, 6
    pixels[:, 20:][skin[:, 20:]] = 249
    found = measured(mask(labels, pixels=pixels))
    assert (found["skin_dark"], found["skin_bright"]) == (0, 0)


def test_grey_levels_are_luma_and_not_the_mean_of_the_colours() -> None:
    labels = HandMade("frontal", FRONTAL).labels
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[..., 1] = 200
    assert measured(mask(labels, pixels=pixels))["skin_light"] == pytest.approx(0.587 * 200, abs=0.5)


def test_sharpness_is_the_variance_of_the_laplacian_in_the_boxes_of_the_eyes() -> None:
    """Eyes of 4 x 3 have 2 x 1 inner pixels each; D = 8 grows no box."""
    labels = np.zeros((40, 40), np.uint8)
    labels[16:19, 14:18], labels[16:19, 22:26] = 8, 9
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[17, 15] = 10  # -40 there, and 10 beside it; 0 and 0 in the other eye
    pixels[0, 0] = 255
    found = measured(mask(labels, pixels=pixels))
    assert found["sharpness"] == pytest.approx(np.var([-40, 10, 0, 0]))
    assert measured(mask(labels[:, ::-1].copy(), pixels=pixels[:, ::-1].copy()))["sharpness"] == found["sharpness"]


def test_what_covers_the_eyes_counts_in_their_boxes_grown_by_a_twentieth_of_their_distance() -> None:
    """D = 40: two pixels on each side.  The boxes are 8 x 6, the eyes 4 x 2; around them is skin, above them hair."""
    labels = np.full((30, 60), CELEBAMASK_HQ.class_names.index("skin"), np.uint8)
    labels[:10] = CELEBAMASK_HQ.class_names.index("hair")
    labels[11:13, 8:12], labels[11:13, 48:52] = 8, 9
    assert measured(mask(labels))["eyes_covered"] == pytest.approx(1 / 6)  # one row of six


def test_a_networks_confidence_is_in_its_columns_and_nan_is_null() -> None:
    best = np.full(3, 0.5)
    best[1] = np.nan
    told = Confidence(best, best / 2, np.nan, 7, 0.25)
    found = measured(mask(np.zeros((2, 2), np.uint8), BARE, confidence=told))
    assert {name: found[name] for name in ("confidence", "low_px", "entropy")} == {
        "confidence": None, "low_px": 7, "entropy": 0.25,
    }  # fmt: skip
    assert [found[f"conf_{name}"] for name in BARE.class_names] == [0.5, None, 0.5]
    assert [found[f"margin_{name}"] for name in BARE.class_names] == [0.25, None, 0.25]


def test_statistics_of_the_mask_are_of_the_stored_one_and_measures_of_the_crop() -> None:
    crop = HandMade("frontal", FRONTAL).labels
    stored = np.full((10, 20), CELEBAMASK_HQ.class_names.index("hair"), np.uint8)
    face = CroppedFace(crop, CELEBAMASK_HQ, np.eye(2, 3), (40, 40))
    found = measured(Mask(stored, face))
    assert (found["mask_pixels"], found["px_hair"], found["mask_width"], found["right_hair"]) == (200, 200, 20, 20)
    assert (found["eye_dist"], found["face_px"], found["x_nose"]) == (8, 0, None)


def test_masks_of_a_batch_give_an_array_per_column_with_nulls_where_there_is_no_mask() -> None:
    row = measured(mask(HAND_MADE[0].labels))
    found = columns([row, None, row], CELEBAMASK_HQ.class_names)
    assert {name: values.to_pylist() for name, values in found.items()} == {
        name: [pytest.approx(value), None, pytest.approx(value)] for name, value in row.items()
    }


@pytest.mark.parametrize("rows", [[None], [], [measured(mask(np.zeros((3, 3), np.uint8)))]])
def test_columns_have_the_types_of_their_fields_whatever_the_masks(rows: list[dict[str, Any] | None]) -> None:
    names = CELEBAMASK_HQ.class_names
    every = [
        field for table in (STATS, SHAPES) for each in (0, 1) for field in fields(names, table, per_class=each > 0)
    ]
    assert {name: values.type for name, values in columns(rows, names).items()} == {f.name: f.type for f in every}


def test_fields_are_the_columns_with_their_types() -> None:
    assert fields(BARE.class_names, STATS, per_class=False)[:2] == [
        pa.field("mask_pixels", pa.int32()),
        pa.field("face_px", pa.int32()),
    ]
    assert fields(BARE.class_names, STATS, per_class=True) == [
        pa.field(f"{each}_{name}", pa.int32() if each == "px" else pa.float32())
        for each in ("px", "frac", "conf", "margin")
        for name in BARE.class_names
    ]


def test_no_two_columns_have_the_same_name() -> None:
    for dataset in (CELEBAMASK_HQ, LAPA, HELEN):
        names = [column for each in STATISTICS for column in each.columns(dataset.class_names)]
        assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize("dataset", [CELEBAMASK_HQ, LAPA, BARE], ids=lambda dataset: dataset.name)
def test_no_mask_however_small_or_odd_makes_a_statistic_fail(dataset: Dataset) -> None:
    """Shares are shares, what is null is None, and each value has its column's type."""
    random = np.random.default_rng(0)
    names = dataset.class_names
    shares = [each.name for each in STATISTICS if each.unit == "0 to 1" and not each.per_class]
    for number in range(300):
        height, width = random.integers(1, 14, 2)
        labels = random.choice([*range(len(names)), OUTSIDE], (height, width)).astype(np.uint8)
        if number % 3 == 0:  # few classes, so that some are absent, or none at all
            labels[labels > random.integers(1, len(names))] = random.choice([0, OUTSIDE])
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        row = measured(mask(labels, dataset, pixels if number % 2 else None))
        assert all(row[name] is None or 0 <= row[name] <= 1 for name in shares)
        assert not any(isinstance(value, float) and not np.isfinite(value) for value in row.values())
        columns([row], names)


def test_what_a_crop_shows_beyond_its_photograph_is_not_measured() -> None:
    """The crop's left half is outside: an eye there is made up, and so is half of the skin."""
    labels = HandMade("frontal", FRONTAL).labels
    beyond = np.array([[1.0, 0, -20], [0, 1, 0]])
    face = CroppedFace(labels, CELEBAMASK_HQ, beyond, (100, 40), np.full((40, 40, 3), 90, np.uint8))
    found = measured(Mask(labels, face))
    assert (found["eye_dist"], found["skin_light"]) == (None, 90)
    assert face.shapes.px.sum() == 800
    assert face.shapes.left[CELEBAMASK_HQ.class_names.index("skin")] == 20
    assert found["px_skin"] == 438  # of the mask as it is stored
    assert found["x_skin"] == 20
    for shift in (-1e-9, 0, 60 + 1e-9):  # within, but for rounding
        within = np.array([[1.0, 0, shift], [0, 1, 0]])
        assert CroppedFace(labels, CELEBAMASK_HQ, within, (100, 40)).inside is labels
    turned = np.array([[0.0, -1, 39], [1, 0, 0]])  # a quarter; its first column lies a pixel beyond
    cut = CroppedFace(labels, CELEBAMASK_HQ, turned, (40, 40)).inside
    assert (cut[-1] == OUTSIDE).all()
    assert (cut[:-1] == labels[:-1]).all()
