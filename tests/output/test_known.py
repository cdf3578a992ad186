"""Which images `--new` leaves out because they are planned."""

from __future__ import annotations

import pyarrow as pa

from segface_batch.inputs.image import SourceImage
from segface_batch.output import plan as plans
from segface_batch.output.known import Known


def known(*images: SourceImage) -> Known:
    return Known([plans.table(images, 0, [len(images)], pa.schema([]))])


def test_no_planned_image_comes_again() -> None:
    """A thousand: one of 256 digests ends in a zero."""
    images = [SourceImage(f"{number}.jpg", f"/in/{number}.jpg") for number in range(1000)]
    found = known(*images)
    assert [image for image in images if image not in found] == []
    assert SourceImage("1000.jpg", "/in/1000.jpg") not in found
    assert images[0] not in known()


def test_an_image_whose_url_is_signed_anew_is_known() -> None:
    shown = "https://host/a.jpg?X-Amz-Signature=REDACTED"
    planned, again = (SourceImage(shown, shown, place=f"https://host/a.jpg?X-Amz-Signature={word}") for word in "ab")
    assert again in known(planned)


def test_another_image_of_a_known_name_or_place_is_new() -> None:
    found = known(SourceImage("a", "/in/a.jpg"))
    assert SourceImage("a", "/other/a.jpg") not in found
    assert SourceImage("b", "/in/a.jpg") not in found
