"""From encoded images to rows without Ray: where masks lie, whose left is left, given boxes, crowds."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from segface_batch import catalog, storage
from segface_batch.images import masks
from segface_batch.images.confidence import Confidence
from segface_batch.images.crop import Crop, crop_faces
from segface_batch.images.masks import OUTSIDE, paste
from segface_batch.job import Job
from segface_batch.model import segface_network
from segface_batch.model.mtcnn import Mtcnn
from segface_batch.model.network import Parsed
from segface_batch.output import plan as plans, run as runs
from segface_batch.pipeline import cropper, metrics, work
from segface_batch.pipeline.metrics import Clock
from segface_batch.pipeline.planning import write_plan
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.worker import Worker, fetched, load_network
from segface_batch.progress import Silence
from segface_batch.storage import options as storage_options
from tests import filled, stand_in
from tests.conftest import PORTRAITS
from tests.model.test_mtcnn import group_image

CHECKPOINT = "mobilenet_celeba_512"
SKIN, L_EYE, R_EYE = (catalog.CELEBAMASK_HQ.class_names.index(name) for name in ("skin", "l_eye", "r_eye"))

WIDTH, HEIGHT = 700, 600


class Painted(stand_in.Quick):
    """Sees what is painted: skin red, the eye to the left yellow, that to the right violet, by whatever is more."""

    checkpoint = catalog.find(CHECKPOINT)

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        red, green, blue = (pixels[..., channel] > 127 for channel in range(3))
        return Parsed(np.where(green, L_EYE, np.where(blue, R_EYE, np.where(red, SKIN, 0))).astype(np.uint8))


class Large(stand_in.Quick):
    """The same labels for crops of 512 x 512."""

    checkpoint = catalog.find(CHECKPOINT)


class Sure(Painted):
    """Is sure of all, and by the grey of a pixel of that one."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        labels = super().parse(pixels).labels
        ones = np.ones(len(self.checkpoint.dataset.classes))
        told = [Confidence(0.75 * ones, 0.5 * ones, 0.7, 12, 0.1, image.max(axis=-1) // 2) for image in pixels]
        return Parsed(labels, told)


class Unsure(Sure):
    """Tells more than it was asked."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        parsed = super().parse(pixels)
        return Parsed(parsed.labels, [*(parsed.confidence or ())] * 2)


PAINTED, LARGE, SURE = (f"{__name__}:{name}" for name in ("Painted", "Large", "Sure"))


class Planned:
    """A manifest, planned as a run does it, and a worker for its units."""

    def __init__(
        self, folder: Path, images: list[dict[str, Any]], threads: int = 1, sha256: str | None = None, **settings: Any
    ) -> None:
        pq.write_table(pa.Table.from_pylist(images), folder / "list.parquet")
        self.out = Path(tempfile.mkdtemp(dir=folder))
        self.job = Job(str(folder / "list.parquet"), str(self.out), **{"max_pixels": 10**6, **settings})
        name, _ = write_plan(self.job, Silence())
        plan = plans.read(runs.plan_folder(str(self.out)), [name])
        self.works = [
            work.Work(planned, unit, str(self.out / f"unit-{unit}.arrow"))
            for planned in plan.parts
            for unit in planned.units
        ]
        self.worker = Worker(self.job, Resources(0, threads), sha256)

    def reports(self, calls: int = 1) -> list[dict[str, Any]]:
        """What the worker reports of each unit, so many of them at a time."""
        with ThreadPoolExecutor(calls) as callers:
            tables = list(callers.map(lambda one: self.worker(work.to_table([one])), self.works))
        return [row for table in tables for row in table.to_pylist()]

    def rows(self) -> list[dict[str, Any]]:
        """The rows that are staged."""
        assert [report["fatal"] for report in self.reports()] == [None] * len(self.works)
        return [row for one in self.works for row in staged(one.target).to_pylist()]


def staged(place: str) -> pa.Table:
    with pa.ipc.open_file(place) as reader:
        return reader.read_all()


def rows(folder: Path, images: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    return Planned(folder, images, **settings).rows()


def painted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Class ids (HEIGHT, WIDTH) of a face anywhere in the image, turned anyhow, and its five landmarks."""
    size, turn = rng.uniform(40, 160), np.exp(1j * rng.uniform(-np.pi, np.pi))
    middle = complex(rng.uniform(0.1, 0.9) * WIDTH, rng.uniform(0.1, 0.9) * HEIGHT)
    points = np.array([-0.5, 0.5, 0.55j, -0.4 + 1j, 0.4 + 1j]) * size * turn + middle
    y, x = np.indices((HEIGHT, WIDTH)) + 0.5
    place = x + 1j * y
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[abs(place - middle - 0.1j * size * turn) < 1.6 * size] = SKIN
    labels[abs(place - points[0]) < 0.3 * size] = L_EYE
    labels[abs(place - points[1]) < 0.3 * size] = R_EYE
    return labels, np.stack([points.real, points.imag], 1)


def image_of(labels: np.ndarray) -> Image.Image:
    colors = np.zeros((256, 3), np.uint8)
    colors[[SKIN, L_EYE, R_EYE]] = (255, 0, 0), (255, 255, 0), (255, 0, 255)
    return Image.fromarray(colors[labels])


def laid(row: dict[str, Any]) -> np.ndarray:
    """The row's mask in its image, background elsewhere."""
    mask = masks.decode(row["mask"]["bytes"])
    labels = np.zeros((row["height"], row["width"]), np.uint8)
    a, b, left, d, e, top = row["transform"]
    assert (a, b, d, e) == (1, 0, 0, 1)
    labels[int(top) : int(top) + mask.shape[0], int(left) : int(left) + mask.shape[1]] = mask
    return labels


@pytest.fixture(scope="module")
def placements(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], list[np.ndarray]]:
    folder, rng, truths, images = tmp_path_factory.mktemp("painted"), np.random.default_rng(2), [], []
    for number in range(30):
        labels, points = painted(rng)
        image_of(labels).save(folder / f"{number}.png", compress_level=1)
        truths.append(labels)
        images.append({"uri": f"{number}.png", "landmarks": points.ravel()})
    return folder, images, truths


def test_a_mask_in_the_images_space_is_what_was_painted(placements) -> None:
    folder, images, truths = placements
    ious, swaps = [], 0
    for row, truth in zip(
        rows(folder, images, network=PAINTED, faces="given", mask_space="image"), truths, strict=True
    ):
        found = laid(row)
        for index in np.unique(truth):
            same, either = (found == index) & (truth == index), (found == index) | (truth == index)
            ious.append(same.sum() / either.sum())
        assert row["px_skin"] == (found == SKIN).sum() == pytest.approx((truth == SKIN).sum(), rel=0.01)
        assert row["frac_skin"] == pytest.approx(row["px_skin"] / row["mask_pixels"])
        assert row["mask_pixels"] == sum(row[f"px_{name}"] for name in catalog.CELEBAMASK_HQ.class_names)
        swaps += sum(((found == index) & (truth == other)).any() for index, other in ((L_EYE, R_EYE), (R_EYE, L_EYE)))
    print(f"{len(truths)} placements: least IoU {min(ious):.4f} of {len(ious)}, {swaps} side swaps")
    assert np.median(ious) > 0.99
    assert min(ious) > 0.98  # small eyes that the edge of the image cuts
    assert swaps == 0


def test_a_mask_as_parsed_has_the_area_that_its_transform_says(placements) -> None:
    folder, images, truths = placements
    whole = 0
    for row, truth in zip(rows(folder, images, network=PAINTED, faces="given"), truths, strict=True):
        a, b, c, d, e, f = row["transform"]
        assert row["mask_pixels"] == 512 * 512
        y, x = np.nonzero(masks.decode(row["mask"]["bytes"]) == L_EYE)
        x, y = a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f
        inside = (x >= 0) & (y >= 0) & (x < WIDTH) & (y < HEIGHT)
        assert (truth[y[inside].astype(int), x[inside].astype(int)] != R_EYE).all()
        if inside.all() and (truth == L_EYE).any():  # nothing of it is the image's reflection
            whole += 1
            assert row["px_l_eye"] * abs(a * e - b * d) == pytest.approx((truth == L_EYE).sum(), rel=0.01)
    assert whole > 10


@pytest.mark.parametrize("space", ["crop", "image"])
def test_measures_are_of_the_photograph_whatever_the_turn_and_the_space_of_the_mask(
    placements: tuple[Path, list[dict[str, Any]], list[np.ndarray]], space: str
) -> None:
    folder, images, truths = placements
    found = rows(folder, images, faces="given", network=PAINTED, mask_space=space)
    seen = 0
    for row, truth in zip(found, truths, strict=True):
        left, right = np.reshape(row["points"], (5, 2))[:2]
        across = right - left
        whole = np.pi * (0.3 * np.hypot(*across)) ** 2  # an eye that is within the image
        if any((truth == eye).sum() < 0.98 * whole for eye in (L_EYE, R_EYE)):
            continue
        seen += 1
        assert row["eye_dist"] == pytest.approx(np.hypot(*across), rel=0.02)
        turn = np.degrees(np.arctan2(across[1], across[0]))
        assert abs((row["roll"] - turn + 180) % 360 - 180) < 1.5
        x, y = (left + right) / 2
        assert row["margin_left"] * row["eye_dist"] == pytest.approx(x, abs=2)
        assert row["margin_right"] * row["eye_dist"] == pytest.approx(WIDTH - x, abs=2)
        assert row["margin_above"] / (row["margin_above"] + row["margin_below"]) == pytest.approx(y / HEIGHT, abs=0.01)
        assert row["swapped"] == 0
    assert seen > 3


@pytest.mark.parametrize("space", ["crop", "image"])
def test_what_a_network_tells_of_itself_is_stored_unless_that_is_not_wanted(
    placements: tuple[Path, list[dict[str, Any]], list[np.ndarray]], space: str
) -> None:
    folder, images, _ = placements
    settings: dict[str, Any] = {"faces": "given", "mask_space": space}
    (row, *_) = rows(folder, images[:1], network=SURE, confidence_map=True, **settings)
    assert [row[name] for name in ("confidence", "low_px", "conf_hair", "margin_skin")] == [
        pytest.approx(0.7), 12, 0.75, 0.5,
    ]  # fmt: skip
    margins, mask = (masks.decode(row[name]["bytes"]) for name in ("margin", "mask"))
    assert margins.shape == mask.shape
    assert np.median(margins[mask == SKIN]) == 127  # half of its red: it follows the image, wherever that lies
    assert np.median(margins[mask == 0]) == 0
    (other, *_) = rows(folder, images[:1], network=SURE, confidence=False, **settings)
    changed = {name for name in row if other[name] != row[name]}
    classes = catalog.CELEBAMASK_HQ.class_names
    assert changed == {"confidence", "low_px", "entropy", "margin"} | {
        f"{each}_{name}" for each in ("conf", "margin") for name in classes
    }
    assert {other[name] for name in changed} == {None}


def test_as_many_confidences_as_masks_are_told(tmp_path: Path) -> None:
    planned = Planned(tmp_path, [{"uri": str(sorted(PORTRAITS.glob("*.jpg"))[0])}], network=f"{__name__}:Unsure")
    (report,) = planned.reports()
    assert report["fatal"].endswith("there are 2 confidences for 1 masks; give each one")


def test_a_whole_image_in_its_own_space_is_all_of_it(tmp_path: Path) -> None:
    labels, _ = painted(np.random.default_rng(0))
    image_of(labels).save(tmp_path / "a.png")
    (row,) = rows(tmp_path, [{"uri": "a.png"}], network=PAINTED, mask_space="image")
    assert (row["mask_pixels"], row["transform"]) == (WIDTH * HEIGHT, [1, 0, 0, 0, 1, 0])
    assert (laid(row) == labels).mean() > 0.99


def group(folder: Path, seed: int, columns: int, n_rows: int) -> tuple[Image.Image, list[np.ndarray]]:
    scene, truth = group_image(np.random.default_rng(seed), columns, n_rows)
    scene.save(folder / "group.png", compress_level=1)
    return scene, truth


def test_a_mirrored_photograph_has_the_mirrored_rows_with_left_and_right_exchanged(tmp_path: Path) -> None:
    scene, truth = group(tmp_path, 11, 3, 2)
    ImageOps.mirror(scene).save(tmp_path / "mirrored.png", compress_level=1)
    # The detector's own small differences between the two are test_mtcnn's matter.
    there = [(points * [-1, 1] + [scene.width, 0])[[1, 0, 2, 4, 3]] for points in truth]
    images = [
        {"uri": name, "landmarks": points.ravel()}
        for name, faces in (("group.png", truth), ("mirrored.png", there))
        for points in faces
    ]
    found = rows(tmp_path, images, threads=2, checkpoint="demo-synthetic", faces="given")
    exchanged = []
    for row, other in zip(found[: len(truth)], found[len(truth) :], strict=True):
        assert other["box_left"] == pytest.approx(scene.width - row["box_right"], abs=1e-3)
        for name in catalog.CELEBAMASK_HQ.class_names:
            side, _, part = name.partition("_")
            twin = {"l": f"r_{part}", "r": f"l_{part}"}.get(side, name) if name != "l_lip" else name
            assert other[f"frac_{twin}"] == pytest.approx(row[f"frac_{name}"], abs=0.04)
            if twin != name and abs(row[f"px_{name}"] - row[f"px_{twin}"]) > 40:
                kept = abs(other[f"px_{name}"] - row[f"px_{name}"])
                exchanged.append(abs(other[f"px_{twin}"] - row[f"px_{name}"]) < kept)
    print(f"{sum(exchanged)} of {len(exchanged)} areas of a left or right class went to its twin")
    assert len(exchanged) > 10
    assert np.mean(exchanged) > 0.8  # the rest is the network, whose two sides differ


def test_a_given_box_is_looked_into_for_the_landmarks(tmp_path: Path) -> None:
    _, truth = group(tmp_path, 11, 3, 2)
    rng, images = np.random.default_rng(1), []
    for points in truth:
        eyes, middle = np.linalg.norm(points[0] - points[1]), points.mean(axis=0)
        half = eyes * rng.uniform(1.0, 1.4, 2)
        box = np.concatenate([middle - half, middle + half]) + rng.uniform(-0.1, 0.1, 4) * eyes
        images.append({"uri": "group.png", "box": box.tolist()})
    errors = []
    for given, row, points in zip(images, rows(tmp_path, images, network=LARGE, faces="given"), truth, strict=True):
        assert (row["status"], row["n_faces"]) == ("ok", 1)
        box = [row[f"box_{side}"] for side in ("left", "top", "right", "bottom")]
        assert box == pytest.approx(given["box"], rel=1e-5)
        assert 0 < row["score"] <= 1
        eyes = np.linalg.norm(points[0] - points[1])
        errors.append(np.linalg.norm(np.reshape(row["points"], (5, 2)) - points, axis=1).mean() / eyes)
    print(f"landmarks in given boxes are wrong by {np.median(errors):.3f} eye distances, at most {max(errors):.3f}")
    assert np.median(errors) < 0.12
    assert max(errors) < 0.3


def test_boxes_that_are_no_place_are_rows_with_an_error(tmp_path: Path) -> None:
    group(tmp_path, 11, 1, 1)
    boxes = [[5, 5, 5, 50], [50, 5, 5, 50], [1000, 5, 1100, 50], [1, 2], [float("nan")] * 4, None]
    found = rows(tmp_path, [{"uri": "group.png", "box": box} for box in boxes], network=LARGE, faces="given")
    assert [row["error"] for row in found] == ["bad_box"] * 5 + ["no_landmarks"]
    assert [row["mask"] for row in found] == [None] * 6


class Asked(Large):
    """Asks something whenever it gets a batch."""

    def __init__(self, job: Job, resources: Resources) -> None:
        super().__init__(job, resources)
        self.ask: Callable[[], int] = lambda: 0
        self.answers: list[int] = []

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        self.answers.append(self.ask())
        return super().parse(pixels, landmarks)


ASKED = f"{__name__}:Asked"


def test_a_crowd_is_cropped_when_the_network_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, truth = group(tmp_path, 5, 4, 4)
    settings = {"network": ASKED, "faces": "detect", "min_score": 0.9, "max_pixels": 10**7}
    at_once = rows(tmp_path, [{"uri": "group.png"}], **settings)
    monkeypatch.setattr(cropper, "CROPPED_AHEAD", 2)
    cropped: list[int] = []
    monkeypatch.setattr(
        cropper, "crop_faces", lambda *given: (cropped.append(1) or face for face in crop_faces(*given))
    )
    planned = Planned(tmp_path, [{"uri": "group.png"}], **settings)
    network = planned.worker.network
    assert isinstance(network, Asked)
    network.ask = lambda: len(cropped)
    assert planned.rows() == at_once
    assert network.answers[:2] == [network.batch_size, 2 * network.batch_size]
    assert len(at_once) >= len(truth) - 2
    (few,) = {row["n_faces"] for row in at_once}
    assert few == len(at_once)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swinb_lapa_224", "swinb_helen_512"])
def test_checkpoints_of_lapa_and_helen_parse_faces_that_are_found(name: str, tmp_path: Path) -> None:
    weights = filled.published_file(name, tmp_path)
    images = [{"uri": str(PORTRAITS / "eileen_collins.jpg")}]
    settings = {"checkpoint": name, "weights": str(weights), "faces": "detect", "mask_space": "image"}
    planned = Planned(tmp_path, images, threads=2, **settings)
    (row,) = planned.rows()
    assert (row["status"], row["n_faces"]) == ("ok", 1)
    with Image.open(PORTRAITS / "eileen_collins.jpg") as portrait:
        (crop,) = crop_faces(portrait, catalog.find(name), Mtcnn().detect(portrait))
    assert isinstance(crop, Crop)
    fives = None if crop.landmarks is None else crop.landmarks[None]
    (labels,) = planned.worker.network.parse(crop.pixels[None], fives).labels
    pasted, (left, top) = paste(labels, crop.transform, row["width"], row["height"])
    there = laid(row)[top : top + pasted.shape[0], left : left + pasted.shape[1]]
    assert np.array_equal(there, np.where(pasted == OUTSIDE, 0, pasted))
    assert len(np.unique(there)) > 3


class Watched(stand_in.Quick):
    """Notes which unit each crop is of: its brightness."""

    def __init__(self, job: Job, resources: Resources) -> None:
        self.seen: list[int] = []

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        self.seen += [int(crop[0, 0, 0]) for crop in pixels]
        time.sleep(0.02)
        return Parsed(np.zeros(pixels.shape[:3], np.uint8))


@pytest.mark.parametrize("threads", [1, 2])
def test_units_in_a_worker_have_the_network_one_after_the_other(threads: int, tmp_path: Path) -> None:
    images = []
    for number in range(64):
        path = tmp_path / f"{number:02d}.png"
        Image.new("L", (64, 64), number // 8).save(path)
        images.append({"uri": str(path)})
    planned = Planned(tmp_path, images, threads, network=f"{__name__}:Watched")
    reports = planned.reports(calls=3)
    assert [(report["fatal"], report["errors"]) for report in reports] == [(None, 0)] * 8
    network = planned.worker.network
    assert isinstance(network, Watched)
    assert len(network.seen) == 64
    assert len(list(itertools.groupby(network.seen))) == len(planned.works) == 8


class Failing(stand_in.Quick):
    """Fails at every batch."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        raise RuntimeError("out of memory\nand more")


def test_a_network_that_fails_is_a_fatal_report_in_one_line(tmp_path: Path) -> None:
    group(tmp_path, 5, 1, 1)
    (report,) = Planned(tmp_path, [{"uri": "group.png"}], network=f"{__name__}:Failing").reports()
    assert report["fatal"] == "the network failed: RuntimeError: out of memory"
    assert not (tmp_path / "unit-0.arrow").exists()


class Mislabelling(stand_in.Quick):
    """Gives labels that are no mask of its crops."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        return Parsed(self.make(pixels[..., 0] % 2))

    #: What it makes of labels that are right.
    make: Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda labels: labels.astype(np.int64), "labels are int64 of shape (1, 192, 192)"),
        (lambda labels: labels[:, ::2, ::2], "labels are uint8 of shape (1, 96, 96)"),
        (lambda labels: labels[:0], "labels are uint8 of shape (0, 192, 192)"),
        (lambda labels: labels + np.uint8(18), "there is a label 19, and the class table has 19 classes"),
    ],
    ids=["dtype", "side", "batch", "class"],
)
def test_labels_that_are_no_mask_are_a_fatal_report(
    make: Callable[[np.ndarray], np.ndarray], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mislabelling, "make", staticmethod(make), raising=False)
    pixels = np.indices((64, 64)).sum(0).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    images = [{"uri": str(tmp_path / "noise.png")}]
    (report,) = Planned(tmp_path, images, network=f"{__name__}:Mislabelling").reports()
    assert report["fatal"].startswith(f"the network failed: ValueError: {told}")


class LastClass(stand_in.Quick):
    """Sees nothing but the last class of its table."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        return Parsed(np.full(pixels.shape[:3], len(self.checkpoint.dataset.classes) - 1, np.uint8))


def test_the_last_class_of_the_table_is_a_label(tmp_path: Path) -> None:
    group(tmp_path, 5, 1, 1)
    (row,) = rows(tmp_path, [{"uri": "group.png"}], network=f"{__name__}:LastClass")
    assert row[f"frac_{catalog.CELEBAMASK_HQ.class_names[-1]}"] == 1


def test_a_worker_refuses_weights_that_are_not_the_runs(tmp_path: Path) -> None:
    job = Job(str(PORTRAITS), str(tmp_path / "out"), checkpoint="demo-synthetic", engine="torch")
    with pytest.raises(ValueError, match=f"demo-synthetic.safetensors has sha256 .*, expected {'0' * 64}: another"):
        Worker(job, Resources(0, 1), "0" * 64)


@pytest.mark.parametrize("where", [{"weights": "w.pt"}, {"revision": "main"}], ids=str)
def test_every_setting_of_the_network_reaches_it(
    where: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pt").touch()
    monkeypatch.chdir(tmp_path)
    made: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(segface_network, "SegFaceNetwork", lambda checkpoint, **given: made.append((checkpoint, given)))
    settings = {"precision": "bf16", "batch_size": 5, "engine": "torch", "compile": True, "confidence_map": True}
    settings |= where
    load_network(Job(str(PORTRAITS), "out", checkpoint=CHECKPOINT, **settings), Resources(1.0, 3), "0" * 64)
    of_worker = {"weights_sha256": "0" * 64, "device": "cuda", "threads": 3}
    assert made == [(CHECKPOINT, {"weights": None, "revision": None, **settings, **of_worker})]


def test_a_unit_without_a_readable_image_is_a_fatal_report_unless_that_is_allowed(tmp_path: Path) -> None:
    images = [{"uri": f"{number}.png"} for number in range(8)]
    for image in images:
        (tmp_path / image["uri"]).symlink_to(image["uri"])
    (report,) = Planned(tmp_path, images, network=PAINTED).reports()
    assert report["fatal"].startswith("all 8 images of unit 0 are unfetchable (first: ")
    (report,) = Planned(tmp_path, images, network=PAINTED, allow_unreadable=True).reports()
    assert (report["fatal"], report["errors"]) == (None, 8)


def test_a_file_that_became_longer_is_another_one_unless_it_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()  # a folder tells the sizes of its files
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.png")
    job = Job(str(tmp_path / "in"), str(tmp_path / "out"), network=PAINTED)
    name, _ = write_plan(job, Silence())
    (part,) = plans.read(runs.plan_folder(job.output), [name]).parts
    Image.new("RGB", (99, 99)).save(tmp_path / "in" / "a.png")
    worker, one = Worker(job, Resources(0, 1), None), work.Work(part, 0, str(tmp_path / "unit-0.arrow"))
    errors = [worker(work.to_table([one], again)).to_pylist()[0]["errors"] for again in (False, True)]
    assert errors == [1, 0]


def test_renewed_keys_in_the_file_of_options_are_used_when_rows_are_staged(tmp_path: Path) -> None:
    group(tmp_path, 5, 1, 1)
    options = tmp_path / "options.json"
    options.write_text('{"s3": {"key": "old"}}')
    planned = Planned(tmp_path, [{"uri": "group.png"}], network=PAINTED, storage_options=str(options))
    (one,) = planned.works
    (row,) = work.to_table([one]).to_pylist()
    try:
        unit, images = planned.worker.fetch(row, Clock())
        found = planned.worker.rows(images, Clock())
        options.write_text('{"s3": {"key": "new"}}')
        assert planned.worker.stage(one.target, unit, found, Clock()) == 0
        assert storage_options.given("s3") == {"key": "new"}
    finally:
        storage.configure(None)


def test_the_metrics_count_images_and_faces_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group(tmp_path, 11, 3, 2)
    Image.new("RGB", (200, 300), (40, 80, 120)).save(tmp_path / "nobody.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    counted: list[tuple[Any, ...]] = []
    monkeypatch.setattr(metrics, "count", lambda name, amount, **tags: counted.append((name, amount, tags)))
    images = [{"uri": name} for name in ("group.png", "nobody.png", "broken.png")]
    settings = {"network": LARGE, "faces": "detect", "min_score": 0.9, "max_pixels": 10**7}
    found = rows(tmp_path, images, **settings)
    assert len(found) == 2 + (faces := found[0]["n_faces"]) > 4
    read = sum((tmp_path / image["uri"]).stat().st_size for image in images)
    stages = [(name, tags) for name, _, tags in counted if name == "segface_stage_seconds_total"]
    assert [each for each in counted if each[0] != "segface_stage_seconds_total"] == [
        ("segface_bytes_total", read, {}),
        ("segface_images_total", 1, {"status": "ok", "error": ""}),
        ("segface_images_total", 1, {"status": "no_face", "error": ""}),
        ("segface_images_total", 1, {"status": "error", "error": "unreadable"}),
        ("segface_faces_total", faces, {}),
    ]
    assert stages == [("segface_stage_seconds_total", {"stage": stage}) for stage in metrics.STAGES]


def test_a_unit_that_a_task_has_fetched_gives_the_same_report_and_rows(tmp_path: Path) -> None:
    group(tmp_path, 5, 1, 1)
    images = [{"uri": "group.png"}, {"uri": "absent.png"}]
    planned = Planned(tmp_path, images, network=PAINTED)
    own = planned.rows()
    (one,) = planned.works
    Path(one.target).unlink()
    handed = fetched(work.to_table([one]), planned.job)
    assert [each["error"] for each in handed["fetched"][0].as_py()] == [None, "missing"]
    (report,) = planned.worker(handed).to_pylist()
    assert (report["target"], report["errors"], report["fatal"]) == (one.target, 1, None)
    assert report["seconds"]["fetch"] == handed["fetch_seconds"][0].as_py() > 0
    assert staged(one.target).to_pylist() == own
