from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torchvision.transforms import v2

from pipelines.demo_model import train
from pipelines.demo_model.learning import Faces, Training, loss, mirrored_classes, rarity
from segface_batch import catalog
from segface_batch.demo import FACES, TRUTH
from segface_batch.model import weights
from segface_batch.model.segface import SegFace

ROOT = Path(__file__).parents[2]

TINY = replace(catalog.find(catalog.DEMO_CHECKPOINT), resolution=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen of the embedded faces at 64 pixels, as pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for path in sorted((FACES / "rendered").glob("*.jpg"))[:16]:
        with Image.open(path) as image, Image.open(TRUTH / "rendered" / f"{path.stem}.png") as truth:
            image.resize((64, 64)).save(folder / "images" / path.name)
            truth.resize((64, 64), Image.Resampling.NEAREST).save(folder / "labels" / f"{path.stem}.png")
    return folder


def settings(folder: Path, target: Path, *words: str) -> list[str]:
    return [str(folder), str(target), "--checkpoint", catalog.DEMO_CHECKPOINT, "--size", "64", *words]


@pytest.mark.slow
def test_the_loss_falls_on_sixteen_tiny_faces(folder: Path) -> None:
    torch.manual_seed(0)
    faces = Faces(folder, TINY)
    chosen = train.command_line().parse_args(settings(folder, Path("unused"), "--epochs", "12", "--lr", "2e-3"))
    training = Training.of(SegFace(TINY), chosen, steps_per_epoch=2)
    loader = torch.utils.data.DataLoader(faces, batch_size=8)
    losses = [training.epoch(training.network, loader, torch.ones(19)) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
def test_training_goes_on_where_it_was_killed_and_gives_the_same_file(folder: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    words = ["--random", "--lr", "1e-3", "--milestones", "1", "--epochs", "2"]
    train.main(settings(folder, whole, *words))
    stopped = Stopped(after=1)
    with pytest.raises(KeyboardInterrupt), stopped:
        train.main(settings(folder, broken, *words))
    assert not broken.exists()
    train.main(settings(folder, broken, *words))
    assert stopped.epochs == 1
    tensors = weights.read(whole)
    again = weights.read(broken)
    assert tensors.keys() == again.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, again[name])] == []


class Stopped:
    """Ends the program when a number of epochs is done: the print of the second is never reached."""

    def __init__(self, after: int) -> None:
        self.after, self.epochs = after, 0

    def __enter__(self) -> None:
        self.old = sys.stderr
        sys.stderr = self  # pyright: ignore[reportAttributeAccessIssue]

    def __exit__(self, *_: object) -> None:
        sys.stderr = self.old

    def write(self, text: str) -> int:
        if text.startswith("epoch"):
            if self.epochs == self.after:
                raise KeyboardInterrupt
            self.epochs += 1
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.slow
def test_two_epochs_of_fine_tuning_make_a_file_that_annotate_takes(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "tuned.safetensors"
    words = settings(folder, target, "--epochs", "2", "--held-out", str(folder), "--half", "--note", "data=toy folder")
    command = [sys.executable, "-m", "pipelines.demo_model.train", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in told] == ["epoch 1/2", "epoch 2/2"]
    assert "mean F1 0." in told[1]
    with safe_open(target, framework="pt") as file:
        notes = file.metadata()
    assert (notes["checkpoint"], notes["resolution"], notes["data"]) == ("demo-synthetic", "192", "toy folder")
    assert list(json.loads(notes["f1"])) == list(catalog.CELEBAMASK_HQ.class_names)
    own = weights.load(catalog.find(catalog.DEMO_CHECKPOINT), weights.locate(TINY)).state_dict()
    tuned = weights.load(catalog.find(catalog.DEMO_CHECKPOINT), target).state_dict()
    changed = [name for name in own if not torch.equal(own[name], tuned[name])]
    assert len(changed) > len(own) / 2
    assert not list(tmp_path.glob("*.state*"))


def test_mirrored_faces_change_left_and_right_classes() -> None:
    names = catalog.CELEBAMASK_HQ.class_names
    swapped = {name: names[other] for name, other in zip(names, mirrored_classes(names).tolist(), strict=True)}
    assert {name: other for name, other in swapped.items() if name != other} == {
        "l_ear": "r_ear", "r_ear": "l_ear", "l_brow": "r_brow", "r_brow": "l_brow", "l_eye": "r_eye", "r_eye": "l_eye",
    }  # fmt: skip
    lapa = catalog.LAPA.class_names
    swapped = {name: lapa[other] for name, other in zip(lapa, mirrored_classes(lapa).tolist(), strict=True)}
    assert {name: other for name, other in swapped.items() if name != other} == {
        "lb": "rb", "rb": "lb", "le": "re", "re": "le",
    }  # fmt: skip


def test_the_loss_is_half_cross_entropy_and_half_dice() -> None:
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])  # one image of two pixels, two classes
    labels = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    p = np.exp([[2.0, 0.0], [0.0, 1.0]])
    p /= p.sum(axis=1, keepdims=True)
    cross = -np.log([p[0, 0], p[1, 1]]).mean()
    dice = 1 - np.mean([(2 * p[k, k] + 1) / (p[:, k].sum() + 1 + 1) for k in range(2)])
    assert float(loss(logits, labels, torch.ones(2))) == pytest.approx(0.5 * cross + 0.5 * dice, rel=1e-6)
    weighted = -(np.log([p[0, 0], p[1, 1]]) * [0.5, 2.0]).mean()
    found = float(loss(logits, labels, torch.tensor([0.5, 2.0])))
    assert found == pytest.approx(0.5 * weighted + 0.5 * dice, rel=1e-6)


def test_rare_classes_count_more_and_all_pixels_together_as_much_as_before(folder: Path) -> None:
    faces = Faces(folder, catalog.find(catalog.DEMO_CHECKPOINT))
    labels = np.concatenate([np.asarray(Image.open(path)).ravel() for path in (folder / "labels").glob("*.png")])
    pixels = np.maximum(np.bincount(labels, minlength=19), 1)
    weights = rarity(faces, 0.5).numpy()
    assert weights / weights[0] == pytest.approx((pixels / pixels[0]) ** -0.5, rel=1e-5)
    assert (weights * pixels).sum() / pixels.sum() == pytest.approx(1, rel=1e-5)
    assert rarity(faces, 0.0).tolist() == [1.0] * 19


def test_images_and_labels_move_together(folder: Path, tmp_path: Path) -> None:
    """The images here are the label maps themselves, so that every pixel says which label belongs to it."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").symlink_to(folder / "labels")
    for path in (folder / "labels").iterdir():
        with Image.open(path) as labels:
            labels.point(lambda value: 10 * value).save(tmp_path / "images" / path.name)
    torch.manual_seed(0)
    own, varied = Faces(tmp_path, TINY), Faces(tmp_path, TINY, varied=True)
    varied.recolored = v2.Compose([v2.Identity()])
    mirrored = []
    for index in range(len(own)):
        pixels, labels, landmarks = varied[index]
        assert (pixels.shape, pixels.dtype) == ((64, 64, 3), torch.uint8)
        assert (labels.shape, labels.dtype, landmarks.tolist()) == ((64, 64), torch.uint8, [[0, 0]] * 5)
        assert not torch.equal(labels, own[index][1])
        seen = (pixels[..., 0].float() / 10).round().long()
        inside = pixels[..., 0] % 10 == 0  # not a blend of two classes
        either = (seen, varied.mirrored[seen.clamp(max=18)])
        agree = [float((found == labels)[inside].float().mean()) for found in either]
        assert max(agree) > 0.97
        mirrored.append(agree[1] > agree[0])
    assert True in mirrored
    assert False in mirrored


def test_label_maps_may_have_another_size_than_their_images(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").symlink_to(folder / "labels")
    for path in (folder / "images").iterdir():
        with Image.open(path) as image:
            image.resize((256, 256)).save(tmp_path / "images" / path.name)
    assert torch.equal(Faces(tmp_path, TINY)[3][1], Faces(folder, TINY)[3][1])


def test_lapa_faces_bring_their_landmarks_and_do_not_move(folder: Path, tmp_path: Path) -> None:
    lapa = replace(catalog.find("swinb_lapa_224"), resolution=32)
    for kind in ("images", "labels", "landmarks"):
        (tmp_path / kind).mkdir()
    Image.new("RGB", (64, 64), (200, 100, 50)).save(tmp_path / "images" / "a.png")
    truth = np.zeros((64, 64), np.uint8)
    truth[16:, 8:40] = 1
    Image.fromarray(truth).save(tmp_path / "labels" / "a.png")
    points = [(20, 24), (44, 24), (32, 36), (24, 48), (40, 48)]
    lines = ["5", *(f"{x} {y}" for x, y in points)]
    (tmp_path / "landmarks" / "a.txt").write_text("\n".join(lines))
    for _ in range(8):
        _, labels, landmarks = Faces(tmp_path, lapa, varied=True)[0]
        assert landmarks.tolist() == [[x / 2, y / 2] for x, y in points]
        assert labels.tolist() == truth[::2, ::2].tolist()


def test_what_is_no_label_map_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").symlink_to(folder / "images")
    name = Faces(folder, TINY).names[0]
    for labels, message in (
        (Image.new("RGB", (64, 64)), "is no 8-bit map of class ids"),
        (Image.new("L", (64, 32)), "of the same proportions as its image"),
        (Image.new("L", (64, 64), 19), "has the class id 19; demo-synthetic knows 0 to 18"),
    ):
        labels.save(tmp_path / "labels" / f"{name}.png")
        with pytest.raises(ValueError, match=message):
            Faces(tmp_path, TINY)[0]


def test_mistakes_are_one_line_before_torch_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from pipelines.demo_model.train import main\n"
        "for words in (['a', 'b', '--checkpoint', 'swin'], ['a', 'b', '--checkpoint', 'demo-synthetic']):\n"
        "    try: main(words)\n"
        "    except SystemExit as end: print(end)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    unknown, absent, loaded = done.stdout.splitlines()
    assert unknown.startswith("train: unknown checkpoint 'swin'; ")
    assert absent == "train: no folder 'a'; give one with images/ and labels/"
    assert loaded == "False"


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match=r"lacks labels/\*\.png; give pairs"):
        Faces(tmp_path, TINY)
    (tmp_path / "labels" / "a.png").touch()
    with pytest.raises(FileNotFoundError, match=r"lacks images/a\.jpg or \.png"):
        Faces(tmp_path, TINY)
