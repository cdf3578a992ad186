from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segface_batch.catalog import LAPA
from segface_batch.curate.show import OPACITY, SIDE, draw, file_name, show
from segface_batch.images.masks import OUTSIDE
from segface_batch.output.reader import open_output
from tests.curate import small_output
from tests.curate.small_output import FACE

#: Chosen so that no blend ends in .5.
RED, BLUE = (203, 3, 3), (3, 3, 203)
MARGIN = 12

#: Drawn pixels for one pixel of the 64 x 32 image.
SCALE = SIDE // 64


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return small_output.small_output(tmp_path)


def halves(image: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image and overlay (256, 512, 3) of what `show` drew of a 64 x 32 image."""
    pixels = np.asarray(Image.open(image))
    rows = slice(MARGIN, MARGIN + SIDE // 2)
    return pixels[rows, MARGIN : MARGIN + SIDE], pixels[rows, 2 * MARGIN + SIDE : 2 * MARGIN + 2 * SIDE]


def color_at(half: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    """The colour in the middle of a pixel of the image."""
    return tuple(int(value) for value in half[y * SCALE + SCALE // 2, x * SCALE + SCALE // 2])


def painted(name: str, under: tuple[int, int, int]) -> tuple[int, ...]:
    color = LAPA.classes[LAPA.class_names.index(name)].color
    return tuple(round(below + OPACITY * (above - below)) for above, below in zip(color, under, strict=True))


def test_the_mask_is_stretched_over_its_box_of_an_image_that_is_not_square(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "one.png"
    assert show(str(out), "a/one.png", target) == target
    plain, overlay = halves(target)
    assert color_at(plain, 4, 16) == RED
    assert color_at(plain, 60, 16) == BLUE
    # A step of the mask is 8 pixels wide and 4 high: hair is 0..64 x 0..8, nose 24..40 x 16..24, skin around it.
    assert color_at(overlay, 4, 2) == painted("hair", RED)
    assert color_at(overlay, 60, 2) == painted("hair", BLUE)
    assert color_at(overlay, 26, 18) == painted("nose", RED)
    assert color_at(overlay, 20, 28) == painted("face_lr_rr", RED)
    assert color_at(overlay, 44, 28) == painted("face_lr_rr", BLUE)
    assert color_at(overlay, 4, 28) == RED
    assert color_at(overlay, 60, 28) == BLUE


def test_a_white_line_runs_between_classes(out: Path, tmp_path: Path) -> None:
    _, overlay = halves(show(str(out), "a/one.png", tmp_path / "one.png"))
    is_line = (overlay == 255).all(axis=2)
    assert is_line[8 * SCALE - 1].all()
    assert np.flatnonzero(is_line[20 * SCALE]).tolist() == [16 * 8 - 1, 24 * 8 - 1, 40 * 8 - 1, 48 * 8 - 1]


def test_all_faces_are_drawn_each_in_its_box_or_the_one_asked_for(out: Path, tmp_path: Path) -> None:
    _, both = halves(show(str(out), "two.png", tmp_path / "both.png"))
    _, second = halves(show(str(out), "two.png", tmp_path / "second.png", face=1))
    # The first face has the box 0..32 x 0..16, the second 32..64 x 8..16.
    assert color_at(both, 2, 2) == painted("hair", RED)
    assert color_at(second, 2, 2) == RED
    for overlay in (both, second):
        assert color_at(overlay, 60, 12) == painted("face_lr_rr", BLUE)
        assert color_at(overlay, 60, 4) == BLUE
        assert color_at(overlay, 60, 20) == BLUE


def test_a_box_may_reach_beyond_the_image_and_lie_between_pixels(tmp_path: Path) -> None:
    image = small_output.write_image(tmp_path / "a.png")
    values = {"box_left": -64.5, "box_top": -32, "box_right": 63.5, "box_bottom": 32}
    labels = small_output.mask(("hair", 0, 0, 8, 7), ("nose", 0, 7, 8, 8))
    small_output.write_part(tmp_path / "out", 0, [small_output.row("a.png", image, 0, labels, **values)])
    _, overlay = halves(show(str(tmp_path / "out"), "a.png", tmp_path / "a-show.png"))
    assert color_at(overlay, 2, 2) == painted("hair", RED)
    assert color_at(overlay, 2, 28) == painted("nose", RED)
    last = overlay[4, -SCALE:].tolist()
    # The box ends half a pixel before the image does: four drawn pixels, the last of the inner ones being the line.
    assert last[:3] == [list(painted("hair", BLUE))] * 3
    assert last[4:] == [list(BLUE)] * 4


def test_an_output_of_an_earlier_version_is_refused_in_one_line(tmp_path: Path) -> None:
    image = small_output.write_image(tmp_path / "a.png")
    row = small_output.row("a.png", image, 0, small_output.FACE)
    small_output.write_part(tmp_path / "out", 0, [row], schema_version=1)
    with pytest.raises(ValueError, match="has schema version 1, and this segface-batch reads 5; use that one"):
        show(str(tmp_path / "out"), "a.png", tmp_path / "a-show.png")


def test_the_legend_lists_the_classes_there_by_size(out: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(show(str(out), "a/one.png", tmp_path / "one.png")))
    left = 3 * MARGIN + 2 * SIDE
    swatches = [pixels[MARGIN + 23 * line + 4, left + 10].tolist() for line in range(5)]
    colors = {entry.name: list(entry.color) for entry in LAPA.classes}
    assert swatches == [[255] * 3, colors["face_lr_rr"], colors["hair"], colors["nose"], [255] * 3]
    assert (pixels[:, -MARGIN:] == 255).all()


def test_the_colours_are_those_of_the_output_not_of_the_catalogue(tmp_path: Path) -> None:
    out = small_output.small_output(tmp_path)
    for name in ("part-00000", "part-00001"):
        path = out / "stats" / f"{name}.parquet"
        table = pq.read_table(path)
        run = json.loads(table.schema.metadata[b"segface_batch"])
        run["classes"][10]["color"] = [10, 20, 30]
        pq.write_table(table.replace_schema_metadata({"segface_batch": json.dumps(run)}), path)
    _, overlay = halves(show(str(out), "a/one.png", tmp_path / "one.png"))
    assert color_at(overlay, 4, 2) == tuple(
        round(a + OPACITY * (b - a)) for a, b in zip(RED, (10, 20, 30), strict=True)
    )


@pytest.mark.parametrize(
    ("image_id", "face", "reason"),
    [
        ("one.png", None, "no image 'one.png' in the output; did you mean 'a/one.png'?"),
        ("tow.png", None, "no image 'tow.png' in the output; did you mean 'two.png'"),
        ("qqqqqq", None, "no image 'qqqqqq' in the output"),
        ("broken.png", None, "'broken.png' has no mask: it failed with 'truncated' ("),
        ("empty.png", None, "'empty.png' has no mask: no face was found in it ("),
        ("two.png", 2, "'two.png' has no face 2; choose one of 0, 1"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    out: Path, tmp_path: Path, image_id: str, face: int | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        show(str(out), image_id, tmp_path / "x.png", face)
    assert str(caught.value).startswith(reason)
    assert not (tmp_path / "x.png").exists()


def test_two_images_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    rows = [small_output.row("a.png", f"/{folder}/a.png", seq, small_output.FACE) for seq, folder in enumerate("xy")]
    small_output.write_part(tmp_path, 0, rows)
    with pytest.raises(ValueError, match=r"several images are called 'a.png': /x/a.png, /y/a.png"):
        show(str(tmp_path), "a.png", tmp_path / "x.png")


def test_an_image_that_is_gone_or_another_now_is_said(out: Path, tmp_path: Path) -> None:
    image = tmp_path / "faces" / "a" / "one.png"
    for width, height in ((32, 64), (65, 32), (64, 33)):
        Image.new("RGB", (width, height)).save(image)
        now = f"changed since it was annotated: 64 x 32 pixels then, {width} x {height} now"
        with pytest.raises(ValueError, match=now):
            show(str(out), "a/one.png", tmp_path / "x.png")
    image.write_bytes(image.read_bytes()[:40])
    with pytest.raises(ValueError, match="changed since it was annotated: it is truncated now"):
        show(str(out), "a/one.png", tmp_path / "x.png")
    image.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no image at '.+one.png' now"):
        show(str(out), "a/one.png", tmp_path / "x.png")


def test_a_turned_mask_is_painted_where_the_pixels_middles_lie(tmp_path: Path) -> None:
    image = small_output.write_image(tmp_path / "a.png")
    turn = np.array([[3.0, -2.0, 20.0], [2.0, 3.0, 2.0]])
    row = small_output.row("a.png", image, 0, small_output.SECOND, transform=turn.ravel().tolist())
    small_output.write_part(tmp_path / "out", 0, [row])
    plain, overlay = halves(show(str(tmp_path / "out"), "a.png", tmp_path / "a-show.png"))
    y, x = (np.indices(overlay.shape[:2]) + 0.5) / SCALE
    mask_x, mask_y = np.tensordot(np.linalg.inv(turn[:, :2]), [x - turn[0, 2], y - turn[1, 2]], 1)
    inside = (np.minimum(mask_x, mask_y) >= 0) & (np.maximum(mask_x, mask_y) < small_output.RESOLUTION)
    # Pillow counts in 1/65536 pixels of the mask, so a pixel on the border may fall on either side; the line between
    # classes is one pixel wide.
    differs = (overlay != plain).any(axis=2) != inside
    border = np.abs(np.stack([mask_x, mask_y, mask_x - 8, mask_y - 8])).min(axis=0) < 2 / SCALE
    assert not (differs & ~border).any()
    assert differs.sum() < 0.02 * inside.sum()


def test_a_face_that_failed_does_not_hide_the_others(tmp_path: Path) -> None:
    image = small_output.write_image(tmp_path / "a.png")
    failed = small_output.row("a.png", image, 0, n_faces=2, width=64, height=32)
    rows = [failed, small_output.row("a.png", image, 0, small_output.SECOND, n_faces=2, face=1)]
    small_output.write_part(tmp_path / "out", 0, rows)
    _, overlay = halves(show(str(tmp_path / "out"), "a.png", tmp_path / "a-show.png"))
    assert color_at(overlay, 2, 2) == painted("face_lr_rr", RED)
    with pytest.raises(ValueError, match=r"'a.png' has no face 0; choose one of 1"):
        show(str(tmp_path / "out"), "a.png", tmp_path / "a-show.png", face=0)


def test_the_background_of_one_face_does_not_hide_another(tmp_path: Path) -> None:
    image = small_output.write_image(tmp_path / "a.png")
    nose = small_output.mask(("nose", 3, 4, 5, 6))
    rows = [small_output.row("a.png", image, 0, mask, n_faces=2, face=n) for n, mask in enumerate((FACE, nose))]
    small_output.write_part(tmp_path / "out", 0, rows)
    output = open_output(str(tmp_path / "out"))
    faces = list(output.faces())
    drawn = draw(output, faces, faces[0].image(), SIDE)
    overlay = np.asarray(drawn.overlay)
    assert color_at(overlay, 4, 2) == painted("hair", RED)
    assert color_at(overlay, 26, 18) == painted("nose", RED)
    # The legend counts the pixels of both masks.
    counts = np.bincount([*FACE.ravel(), *nose.ravel()], minlength=256)
    assert drawn.counts.tolist() == counts.tolist()


def test_box_and_landmarks_of_a_face_are_marked_in_the_image(tmp_path: Path) -> None:
    image = small_output.write_image(tmp_path / "a.png")
    box = {"box_left": 8, "box_top": 4, "box_right": 24, "box_bottom": 20}
    points = {"points": [12.5, 8.5, 18.5, 9.5]}
    small_output.write_part(tmp_path / "out", 0, [small_output.row("a.png", image, 0, FACE, **box, **points)])
    plain, _ = halves(show(str(tmp_path / "out"), "a.png", tmp_path / "a-show.png"))
    is_found = (plain == (255, 220, 0)).all(axis=2)
    assert [is_found[y * SCALE, x * SCALE] for x, y in ((8, 4), (24, 4), (8, 20), (24, 20), (16, 4), (8, 12))] == [
        True
    ] * 6
    dots = np.argwhere(is_found[6 * SCALE : 18 * SCALE, 10 * SCALE : 22 * SCALE])
    assert {tuple(dot) for dot in ((dots // SCALE) + (6, 10)).tolist()} == {(8, 12), (9, 18)}


def test_the_file_of_a_long_name_is_cut_and_unlike_others() -> None:
    assert file_name("a/one.x.png") == "one.x-overlay.png"
    assert file_name("n" * 243 + ".jpg") == "n" * 243 + "-overlay.png"
    assert file_name("n" * 244 + ".jpg") == "n" * 226 + "-e48a3e1e1c332018-overlay.png"
    ids = [f"{folder}/{'ü' * 125}.png" for folder in "ab"]
    names = {file_name(image_id) for image_id in ids}
    assert len(names) == 2
    for name in names:
        assert name.startswith("ü" * 113 + "-")
        assert len(name.encode()) <= 255


@pytest.mark.parametrize("ignored", [3, 8])
def test_pixels_to_be_ignored_are_not_painted_and_not_in_the_legend(tmp_path: Path, ignored: int) -> None:
    """Labels of a data set have such pixels, some even nothing else."""
    labels = small_output.SECOND.copy()
    labels[:ignored] = OUTSIDE
    image = small_output.write_image(tmp_path / "a.png")
    small_output.write_part(tmp_path / "out", 0, [small_output.row("a.png", image, 0, labels)])
    pixels = np.asarray(Image.open(show(str(tmp_path / "out"), "a.png", tmp_path / "shown.png")))
    photograph, overlay = (pixels[MARGIN:, left : left + SIDE] for left in (MARGIN, 2 * MARGIN + SIDE))
    height = SIDE // 2
    assert np.array_equal(overlay[: height * ignored // 8 - 1], photograph[: height * ignored // 8 - 1])
    painted = (overlay[:height] != photograph[:height]).any()
    assert painted == (ignored < 8)
