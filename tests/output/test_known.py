from __future__ import annotations

import pyarrow as pa

from segface_batch.inputs.image import SourceImage
from segface_batch.output import plan
from segface_batch.output.known import Known


def planned(images: list[SourceImage]) -> pa.Table:
    return plan.table(images, 0, [len(images)], pa.schema([]))


def test_images_are_known_by_their_name_and_place_together() -> None:
    images = [SourceImage(f"{number}.jpg", f"s3://b/{number}.jpg") for number in range(2000)]
    known = Known([planned(images[:5]), planned(images[5:])])
    assert [image for image in images if image not in known] == []
    strangers = [image._replace(uri=f"s3://other/{image.image_id}") for image in images]
    strangers += [image._replace(image_id=f"a/{image.image_id}") for image in images]
    assert [image for image in strangers if image in known] == []


def test_what_else_the_plan_says_of_an_image_makes_it_no_new_one() -> None:
    image = SourceImage("a", "https://h/a?sig=REDACTED", None, 7, "https://h/a?sig=one")
    known = Known([planned([image])])
    assert image._replace(n_bytes=8, place="https://h/a?sig=two", landmarks=[1.0, 2.0]) in known


def test_of_no_plan_nothing_is_known() -> None:
    assert SourceImage("a", "b") not in Known([])
