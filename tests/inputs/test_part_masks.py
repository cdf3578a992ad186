"""Part masks in a plan: the files of a face are one image."""

from __future__ import annotations

from segface_batch.catalog import CELEBAMASK_HQ
from segface_batch.inputs.image import Cell, SourceImage
from segface_batch.inputs.part_masks import grouped, parts

NAMES = CELEBAMASK_HQ.class_names


def files(*names: str) -> list[SourceImage]:
    return [SourceImage(name, f"s3://b/{name}", n_bytes=7, carried=("x",)) for name in names]


def test_the_files_of_a_face_become_one_image_with_all_classes() -> None:
    found = list(grouped(files("0/00000_hair.png", "0/00000_l_eye.png", "0/00000_skin.png", "0/00001_skin.png"), NAMES))
    assert found == [
        SourceImage("0/00000", "s3://b/0/00000_{hair,l_eye,skin}.png", carried=("x",)),
        SourceImage("0/00001", "s3://b/0/00001_{skin}.png", carried=("x",)),
    ]


def test_a_class_whose_name_ends_like_another_is_itself() -> None:
    (found,) = grouped(files("7_ear_r.png", "7_r_ear.png", "7_neck.png", "7_neck_l.png"), NAMES)
    assert found.image_id == "7"
    assert found.uri == "s3://b/7_{ear_r,neck,neck_l,r_ear}.png"


def test_what_is_named_otherwise_stays_as_it_is() -> None:
    others = files("a.png", "a_beard.png", "hair.png", "x/_skin_2.png")
    others += [
        SourceImage("s.tar/1_hair.png", "s.tar#1_hair.png", place="/s.tar", offset=512),
        SourceImage("1_hair.png", "p.parquet#1", cell=Cell("image.bytes", 0, 0, 9)),
        SourceImage("1_hair.png", "/1_hair.png", error="bad_uri"),
    ]
    assert list(grouped(others, NAMES)) == others


def test_faces_of_the_same_id_in_two_folders_or_of_two_formats_are_two() -> None:
    found = grouped(files("0/1_hair.png", "1/1_hair.png", "1/1_hair.bmp"), NAMES)
    assert [image.image_id for image in found] == ["0/1", "1/1", "1/1"]


def test_the_parts_of_an_image_are_its_files() -> None:
    (face,) = grouped(files("0/00000_hair.png", "0/00000_skin.png"), NAMES)
    assert {name: image.uri for name, image in parts(face).items()} == {
        "hair": "s3://b/0/00000_hair.png",
        "skin": "s3://b/0/00000_skin.png",
    }
    assert [parts(image) for image in files("a.png", "a_hair.png")] == [{}, {}]
