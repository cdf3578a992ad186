"""Every door of `FaceParser` sees the pixels that `annotate` sees, and says in one line what it refuses."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from segface_batch import FaceParser, Job, annotate, catalog
from segface_batch.errors import ERRORS
from segface_batch.images import masks, statistics
from segface_batch.images.decode import decode
from segface_batch.model import face_parser
from segface_batch.model.network import Parsed
from segface_batch.model.segface_network import SegFaceNetwork
from tests.model.storings import broken, encoded, face, storings

DEMO = "demo-synthetic"
CLASSES = catalog.find(DEMO).dataset.class_names
GOOD, BROKEN = storings(), broken()
SIDE = catalog.find(DEMO).resolution

#: The columns that a batch gains, with the types that never depend on the batch.
GAINED = {
    "error": pa.string(),
    **{
        field.name: field.type
        for table in (statistics.STATS, statistics.SHAPES)
        for per_class in (False, True)
        for field in statistics.fields(CLASSES, table, per_class=per_class)
    },
}


@pytest.fixture(scope="module")
def parser() -> Iterator[FaceParser]:
    """With as many threads as an actor has, so that it rounds as `annotate` does."""
    threads = torch.get_num_threads()
    yield FaceParser(DEMO, device="cpu", threads=1)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("storings")
    for name, data in (GOOD | {name: data for name, (data, _) in BROKEN.items()}).items():
        (place / name).write_bytes(data)
    return place


@pytest.fixture(scope="module")
def annotated(ray_session: None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The row and the mask that `annotate` gives each file."""
    out = tmp_path_factory.mktemp("annotated") / "out"
    annotate(Job(str(folder), str(out), checkpoint=DEMO))
    tables = (pq.read_table(out / name).to_pylist() for name in ("stats", "shapes", "masks"))
    rows = {}
    for row, shapes, mask in zip(*tables, strict=True):
        rows[row["image_id"]] = row | shapes | {"mask": mask["mask"] and masks.decode(mask["mask"]["bytes"])}
    assert {name: row["error"] for name, row in rows.items()} == {
        **dict.fromkeys(GOOD),
        **{name: word for name, (_, word) in BROKEN.items()},
    }
    return rows


@pytest.fixture(scope="module")
def expected(annotated: dict[str, dict[str, Any]]) -> np.ndarray:
    return np.stack([annotated[name]["mask"] for name in GOOD])


def test_paths_bytes_and_pillow_images_get_the_masks_of_annotate(
    parser: FaceParser, folder: Path, expected: np.ndarray
) -> None:
    def loaded(name: str) -> Image.Image:
        image = Image.open(folder / name)
        image.load()
        return image

    doors = {
        "paths": [folder / name for name in GOOD],
        "bytes": GOOD.values(),
        "opened": [Image.open(folder / name) for name in GOOD],
        "loaded": map(loaded, GOOD),
    }
    for door, images in doors.items():
        same = (parser.parse(images) == expected).all(axis=(1, 2))
        assert [name for name, is_same in zip(GOOD, same, strict=True) if not is_same] == [], door


def test_a_list_may_mix_what_names_or_holds_an_image(parser: FaceParser, folder: Path) -> None:
    path, data = folder / "grey16.png", GOOD["grey16.png"]
    opened = Image.open(io.BytesIO(data))
    found = parser.parse([path, str(path), path.as_uri(), data, bytearray(data), memoryview(data), opened])
    assert (found == found[0]).all()


def test_the_ray_data_function_gives_the_rows_of_annotate(folder: Path, annotated: dict[str, dict[str, Any]]) -> None:
    """Sizes and modes mixed, three to a batch: some batches hold broken images only."""
    import ray.data

    table = ray.data.read_binary_files(str(folder), include_paths=True).map_batches(
        FaceParser, fn_constructor_kwargs={"checkpoint": DEMO}, batch_size=3, concurrency=1, num_gpus=0
    )
    rows = {Path(row["path"]).name: row for row in table.take_all()}
    assert rows.keys() == annotated.keys()
    for name, row in rows.items():
        want = annotated[name]
        assert row.keys() == {"path", "bytes", "mask", *GAINED}
        assert {column: row[column] for column in GAINED} == {column: want[column] for column in GAINED}, name
        mask = np.full((SIDE, SIDE), masks.OUTSIDE) if want["mask"] is None else want["mask"]
        assert np.array_equal(row["mask"], mask), name


@pytest.mark.parametrize(
    "rows", [[], ["cut.jpg", "empty.jpg"], ["upright.png"], ["text.jpg", "upright.png", None]], ids=str
)
def test_the_columns_of_a_batch_have_the_same_types_whatever_is_in_it(
    parser: FaceParser, rows: list[str | None]
) -> None:
    every = GOOD | {name: data for name, (data, _) in BROKEN.items()}
    data = np.array([None if name is None else every[name] for name in rows], object)
    found = parser({"bytes": data})
    assert list(found) == ["bytes", "mask", *GAINED]
    assert {name: found[name].type for name in GAINED} == GAINED
    assert (found["mask"].shape, found["mask"].dtype) == ((len(rows), SIDE, SIDE), np.uint8)
    words = {None: "missing", **{name: word for name, (_, word) in BROKEN.items()}}
    assert found["error"].to_pylist() == [words.get(name) for name in rows]
    assert found["px_hair"].is_null().to_pylist() == [name in words for name in rows]


def test_a_batch_of_arrays_may_hold_several_sizes(parser: FaceParser) -> None:
    images = [np.asarray(face()), np.asarray(face(1, (160, 96))), np.asarray(face(2).convert("L"))]
    ragged = np.empty(3, object)
    ragged[:] = images
    assert np.array_equal(parser({"image": ragged})["mask"], parser.parse(images))


def test_a_batch_without_images_says_what_to_give(parser: FaceParser) -> None:
    with pytest.raises(ValueError, match="demo-synthetic needs the column 'image', and the batch has path, data; give"):
        parser({"path": np.array(["a"]), "data": np.array([b""])})


class Grey(np.ndarray):
    """As np.memmap or np.matrix, an array that is another class."""


def test_a_batch_is_a_dict(parser: FaceParser) -> None:
    with pytest.raises(TypeError, match=r"^the batch is a Table; leave out batch_format, so"):
        parser(pa.table({"bytes": [b""]}))  # pyright: ignore[reportArgumentType] -- that is the mistake


def test_arrays_of_the_documented_shapes_are_what_they_say(parser: FaceParser) -> None:
    rgb, grey = face(), face().convert("L")
    pixels, levels = np.asarray(rgb), np.asarray(grey)
    clear = np.dstack([pixels, np.where(levels > 128, 255, 0).astype(np.uint8)])
    frozen = pixels.copy()
    frozen.setflags(write=False)
    same = {
        "RGB": (pixels, rgb),
        "grey": (levels, grey),
        "grey with an axis": (levels[..., None], grey),
        "16 bits": (levels.astype(np.uint16) * 257, grey),
        "RGBA": (clear, Image.fromarray(clear)),
        "mirrored view": (pixels[:, ::-1], Image.fromarray(pixels[:, ::-1].copy())),
        "columns first in memory": (np.asfortranarray(pixels), rgb),
        "read-only": (frozen, rgb),
        "a class of its own": (levels.view(Grey), grey),
    }
    arrays, images = zip(*same.values(), strict=True)
    found = (parser.parse(arrays) == parser.parse([encoded(image, "PNG") for image in images])).all(axis=(1, 2))
    assert dict(zip(same, found.tolist(), strict=True)) == dict.fromkeys(same, True)


def test_a_stack_of_images_is_a_list_of_them(parser: FaceParser) -> None:
    images = [np.asarray(face(number)) for number in range(2)]
    assert np.array_equal(parser.parse(np.stack(images)), parser.parse(images))


PIXELS = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (PIXELS.transpose(2, 0, 1), "is an array of shape (3, 4, 6) and dtype uint8; give (H, W, 3) uint8 RGB"),
        (PIXELS.astype(np.float32), "is an array of shape (4, 6, 3) and dtype float32; give (H, W, 3) uint8 RGB"),
        (PIXELS.astype(np.int64), "is an array of shape (4, 6, 3) and dtype int64; give"),
        (PIXELS.astype(np.uint16), "is an array of shape (4, 6, 3) and dtype uint16; give"),
        (PIXELS[..., 0] > 0, "is an array of shape (4, 6) and dtype bool; give"),
        (PIXELS[..., 0].astype(float), "is an array of shape (4, 6) and dtype float64; give"),
        (PIXELS[..., :2], "is an array of shape (4, 6, 2) and dtype uint8; give"),
        (PIXELS[:0], "is an array of shape (0, 6, 3) and dtype uint8; give"),
        (PIXELS[None], "is an array of shape (1, 4, 6, 3) and dtype uint8; give"),
        (PIXELS.tolist(), "is a list; give a path, a URL, encoded bytes, a Pillow image or a numpy array"),
        (torch.zeros(4, 6, 3, dtype=torch.uint8), "is a Tensor; give a path, a URL, encoded bytes"),
        (io.BytesIO(GOOD["upright.png"]), "is a BytesIO; give a path, a URL, encoded bytes"),
        (None, f": missing ({ERRORS['missing']})"),
        (Image.new("RGB", (0, 0)), f": empty ({ERRORS['empty']})"),
        (Image.new("F", (4, 6)), f": unreadable ({ERRORS['unreadable']})"),
        (Image.new("I", (4, 6)), f": unreadable ({ERRORS['unreadable']})"),
    ],
)
def test_what_is_no_image_is_refused_by_its_index(parser: FaceParser, refused: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(f"images[1]{' ' * (said[0] != ':')}{said}")) as caught:
        parser.parse([PIXELS, refused])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (PIXELS, "array of shape (4, 6, 3) and dtype uint8"),
        (PIXELS[..., 0], "array of shape (4, 6) and dtype uint8"),
        (Image.new("RGB", (4, 6)), "Image"),
        ("a.jpg", "str"),
        (Path("a.jpg"), "PosixPath"),
        (GOOD["upright.png"], "bytes"),
        (bytearray(b"x"), "bytearray"),
    ],
)
def test_one_image_is_no_list(parser: FaceParser, one: Any, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        parser.parse(one)
    assert str(caught.value) == f"images is one {name}; give a list, for one image too: parse([image])"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named_by_its_index_and_word(parser: FaceParser, folder: Path, name: str) -> None:
    data, word = BROKEN[name]
    with ExitStack() as stack:
        doors: list[Any] = [data, folder / name]
        if name in ("cut.jpg", "cut.png", "float.tif"):  # those whose header Pillow opens
            doors += [stack.enter_context(Image.open(folder / name)), Image.open(io.BytesIO(data))]
        for image in doors:
            with pytest.raises(ValueError, match=re.escape(f"images[1]: {word} ({ERRORS[word]})")):
                parser.parse([GOOD["upright.png"], image, GOOD["upright.png"]])


def test_a_pillow_image_is_as_good_as_before_after_it_was_parsed(parser: FaceParser) -> None:
    for data in GOOD.values():
        image = Image.open(io.BytesIO(data))
        parser.parse([image])
        with Image.open(io.BytesIO(data)) as fresh:
            assert np.array_equal(np.asarray(image), np.asarray(fresh))


def test_the_frame_that_pillow_is_at_is_the_image(parser: FaceParser) -> None:
    frames = [face(), face(1)]
    image = Image.open(io.BytesIO(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])))
    for number, frame in enumerate(frames):
        image.seek(number)
        assert np.array_equal(parser.parse([image]), parser.parse([frame]))


def test_a_format_that_only_pillow_reads_is_read_by_it(parser: FaceParser) -> None:
    gif = encoded(face().quantize(64), "GIF")
    assert np.array_equal(parser.parse([Image.open(io.BytesIO(gif))]), parser.parse([face().quantize(64)]))
    with pytest.raises(ValueError, match=r"images\[0\]: unreadable"):
        parser.parse([Image.open(io.BytesIO(gif[: len(gif) // 2]))])


def test_what_was_decoded_stays_as_it_is(parser: FaceParser, expected: np.ndarray) -> None:
    decoded = [decode(data, parser.max_pixels) for data in GOOD.values()]
    assert np.array_equal(parser.parse(decoded), expected)


def test_a_closed_pillow_image_is_unreadable(parser: FaceParser, folder: Path) -> None:
    with Image.open(folder / "rgb.jpg") as image:
        pass
    with pytest.raises(ValueError, match=r"images\[0\]: unreadable"):
        parser.parse([image])


def test_a_missing_file_keeps_its_own_error(parser: FaceParser) -> None:
    with pytest.raises(FileNotFoundError, match=r"no/such\.jpg"):
        parser.parse(["no/such.jpg"])


def test_an_image_of_too_many_pixels_is_refused_at_every_door(folder: Path) -> None:
    limited = FaceParser(DEMO, device="cpu", max_pixels=96 * 128 - 1)
    name = "upright.png"
    for image in (folder / name, GOOD[name], Image.open(io.BytesIO(GOOD[name])), face(), np.asarray(face())):
        with pytest.raises(ValueError, match=r"images\[0\]: too_large"):
            limited.parse([image])
    assert limited({"bytes": np.array([GOOD[name]], object)})["error"].to_pylist() == ["too_large"]


def test_images_are_decoded_when_their_turn_comes(parser: FaceParser, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more crops are held than the network takes at once, however many images a generator gives."""
    given, most = 0, 0

    def images() -> Iterator[np.ndarray]:
        nonlocal given
        for _ in range(5):
            given += 1
            yield PIXELS

    class Watched(SegFaceNetwork):
        def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Any:
            nonlocal most
            most = max(most, len(pixels))
            seen.append(given)
            return super().parse(pixels, landmarks)

    seen: list[int] = []
    monkeypatch.setattr(parser, "network", Watched(DEMO, device="cpu", threads=1, batch_size=2))
    assert len(parser.parse(images())) == 5
    assert (seen, most) == ([2, 4, 5], 2)


def test_threads_may_share_a_parser(parser: FaceParser, expected: np.ndarray) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda data: parser.parse([data])[0], GOOD.values()))
    assert np.array_equal(np.stack(found), expected)


class Cropped:
    """LaPa's and Helen's networks cost too much here; this one shows what they would get."""

    batch_size = 2

    def __init__(self, name: str) -> None:
        self.checkpoint = catalog.find(name)
        self.landmarks: list[np.ndarray | None] = []

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        self.landmarks += [None] * len(pixels) if landmarks is None else list(landmarks)
        return Parsed(pixels[..., 0] % 11)


def parser_of(network: Cropped, monkeypatch: pytest.MonkeyPatch) -> FaceParser:
    monkeypatch.setattr(face_parser, "SegFaceNetwork", lambda checkpoint: network)
    return FaceParser(network.checkpoint.name)


FIVE = np.array([[30, 50], [66, 50], [48, 70], [34, 90], [62, 90]], float)

SIXTY_EIGHT = np.stack([np.linspace(20, 70, 68), np.linspace(30, 100, 68)], axis=1)


@pytest.mark.parametrize(("name", "points"), [("swinb_lapa_224", FIVE), ("swinb_helen_512", SIXTY_EIGHT)])
def test_landmarks_may_be_arrays_lists_flat_or_as_ray_nests_them(
    name: str, points: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = np.empty(len(points), object)
    nested[:] = list(points)
    given = [points, points.tolist(), points.ravel().tolist(), points.astype(np.float32), nested]
    network = Cropped(name)
    parser = parser_of(network, monkeypatch)
    found = parser.parse([GOOD["upright.png"]] * len(given), given)
    assert (found == found[0]).all()
    if name == "swinb_lapa_224":
        seen = [each for each in network.landmarks if each is not None]
        assert np.allclose(seen, [points * 224 / [96, 128]] * len(given))

    column = np.empty(len(given) + 1, object)
    column[:] = [*given, None]
    batch = parser({"bytes": np.array([GOOD["upright.png"]] * len(column), object), "landmarks": column})
    assert batch["error"].to_pylist() == [None] * len(given) + ["no_landmarks"]
    assert np.array_equal(batch["mask"][:-1], found)


@pytest.mark.parametrize(
    ("points", "word"),
    [
        (None, "no_landmarks"),
        ([], "no_landmarks"),
        (FIVE.T, "bad_landmarks"),
        (FIVE[:4], "bad_landmarks"),
        ([[1, 2], [3]], "bad_landmarks"),
        ("1 2 3", "bad_landmarks"),
        (float("nan"), "bad_landmarks"),
    ],
)
def test_wrong_landmarks_are_named_by_index_and_word(points: Any, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(Cropped("swinb_lapa_224"), monkeypatch)
    with pytest.raises(ValueError, match=re.escape(f"images[1]: {word} ({ERRORS[word]})")):
        parser.parse([GOOD["upright.png"]] * 2, [FIVE, points])


def test_a_list_of_landmarks_has_an_entry_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(Cropped("swinb_lapa_224"), monkeypatch)
    with pytest.raises(ValueError, match=r"^landmarks has 5 entries for 1 images; give each image one$"):
        parser.parse([PIXELS], FIVE)
    with pytest.raises(ValueError, match="needs the column 'landmarks', and the batch has bytes; give"):
        parser({"bytes": np.array([GOOD["upright.png"]], object)})
