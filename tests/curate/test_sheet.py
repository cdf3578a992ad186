from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segface_batch.catalog import LAPA
from segface_batch.curate import sheet as sheets
from segface_batch.curate.sheet import sheet
from segface_batch.curate.show import OPACITY
from tests.curate import small_output


def color_of(name: str) -> tuple[int, int, int]:
    return LAPA.classes[LAPA.class_names.index(name)].color


def test_each_face_stands_beside_its_overlay_over_a_legend(tmp_path: Path) -> None:
    out = small_output.small_output(tmp_path)
    page = np.asarray(Image.open(sheet(str(out), tmp_path / "sheet.png")))
    cell = 2 * sheets.SIDE + 3 * sheets._MARGIN
    assert page.shape[1] == 3 * cell  # a/one.png, and both faces of two.png; broken.png and empty.png have no mask
    middle = sheets._MARGIN + sheets.SIDE // 4  # of a image of 2 : 1
    plain, overlay = page[middle, sheets._MARGIN + 4], page[middle, 2 * sheets._MARGIN + sheets.SIDE + 4]
    assert plain.tolist() == [203, 3, 3]
    assert overlay.tolist() == [203, 3, 3]  # background there
    top = sheets._MARGIN + 2
    hair = [round(b + OPACITY * (a - b)) for a, b in zip(color_of("hair"), (203, 3, 3), strict=True)]
    assert page[top, 2 * sheets._MARGIN + sheets.SIDE + 4].tolist() == hair
    legend = {tuple(pixel) for row in page[sheets.SIDE + 2 * sheets._MARGIN :].tolist() for pixel in row}
    assert {color_of(name) for name in LAPA.class_names if name != "background"} <= legend


def test_a_sheet_shows_as_many_as_asked(tmp_path: Path) -> None:
    out = small_output.small_output(tmp_path)
    page = np.asarray(Image.open(sheet(str(out), tmp_path / "sheet.png", images=1)))
    assert page.shape[1] == 2 * sheets.SIDE + 3 * sheets._MARGIN
    legend = page[sheets.SIDE + 2 * sheets._MARGIN :]
    assert (legend[:, -sheets._MARGIN :] == 255).all()  # it has as many lines as it needs


def test_more_faces_than_a_row_holds_begin_another(tmp_path: Path) -> None:
    colors = [(40 * number, 3, 203) for number in range(6)]
    images = [small_output.write_image(tmp_path / f"{n}.png", color, color) for n, color in enumerate(colors)]
    rows = [small_output.row(image.name, image, n, small_output.FACE) for n, image in enumerate(images)]
    small_output.write_part(tmp_path / "out", 0, rows)
    page = np.asarray(Image.open(sheet(str(tmp_path / "out"), tmp_path / "sheet.png")))
    width, height = 2 * sheets.SIDE + 3 * sheets._MARGIN, sheets.SIDE + sheets._MARGIN
    assert page.shape[1] == 4 * width
    found = [
        tuple(page[number // 4 * height + sheets._MARGIN + 4, number % 4 * width + sheets._MARGIN + 4].tolist())
        for number in range(7)
    ]
    assert found == [*colors, (255, 255, 255)]


def test_an_output_without_masks_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small_output.write_part(out, 0, [small_output.row("broken.png", "broken.png", 0)])
    with pytest.raises(ValueError, match=r"no image of .* has a mask"):
        sheet(str(out), tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_an_image_that_is_gone_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small_output.small_output(tmp_path)
    gone = tmp_path / "faces" / "a" / "one.png"
    gone.unlink()
    with Image.open(sheet(str(out), tmp_path / "sheet.png")) as page:
        assert page.width == 2 * (2 * sheets.SIDE + 3 * sheets._MARGIN)
    line = f"1 of 3 faces are left out (first: there is no image at '{gone}' now; its mask is in the output still; "
    assert capsys.readouterr().err.startswith(line)
    (tmp_path / "faces" / "two.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"\Athere is no image at '.+one.png' now; .+\Z"):
        sheet(str(out), tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()
