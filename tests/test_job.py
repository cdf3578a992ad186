from __future__ import annotations

from pathlib import Path

import pytest

from segface_batch.job import Job


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.jpg").touch()
    (tmp_path / "faces" / "notes.md").touch()
    (tmp_path / "list.csv").touch()
    return tmp_path / "faces"


MISTAKES = {
    "checkpoint": (
        {"checkpoint": "swin_celeba_512"},
        "unknown checkpoint 'swin_celeba_512'; did you mean swinb_celeba_512 or swinv2b_celeba_512? "
        "('segface-batch checkpoints' lists them)",
    ),
    "device": ({"device": "gpu"}, "--device gpu: choose one of auto, cpu, cuda"),
    "precision": ({"precision": "fp16"}, "--precision fp16: choose one of fp32, bf16"),
    "engine": ({"engine": "onnx"}, "--engine onnx: choose one of auto, torch, openvino"),
    "engine of a GPU": (
        {"engine": "openvino", "num_gpus": 1.0},
        "--engine openvino is for CPUs: leave out --engine openvino, or --device cuda and --num-gpus",
    ),
    "compiled engine": (
        {"engine": "openvino", "compile": True},
        "--compile is for torch: leave out --compile or --engine openvino",
    ),
    "decode": ({"decode": "draft"}, "--decode draft: choose one of exact, near, fast"),
    "decode fast of faces": (
        {"decode": "fast", "faces": "detect"},
        "--decode fast is for whole images: leave it out, or --faces detect",
    ),
    "decode near of faces": (
        {"decode": "near", "faces": "detect"},
        "--decode near is for whole images: leave it out, or --faces detect",
    ),
    "decode fast of given faces": (
        {"decode": "fast", "faces": "given"},
        "--decode fast is for whole images: leave it out, or --faces given",
    ),
    "decode fast for Helen": (
        {"decode": "fast", "checkpoint": "swinb_helen_512"},
        "--decode fast is for whole images, swinb_helen_512 crops each: leave it out",
    ),
    "batch size": ({"batch_size": 0}, "--batch-size 0: give a whole number from 1 up"),
    "actors": ({"actors": (3, 2)}, "--actors 3:2: give MIN:MAX with 1 <= MIN <= MAX"),
    "no GPU": (
        {"device": "cuda", "num_gpus": 0.0},
        "--device cuda with --num-gpus 0: Ray hides every GPU then; leave --num-gpus out",
    ),
    "GPU of a CPU": ({"device": "cpu", "num_gpus": 1.0}, "--device cpu with --num-gpus 1.0: leave one of them out"),
    "negative GPU": ({"num_gpus": -1.0}, "--num-gpus -1.0: give the GPUs of one actor, 0 or more"),
    "hash": ({"weights_sha256": "abc"}, "--weights-sha256 abc: give 64 lower-case hexadecimal digits"),
    "revision": (
        {"weights": "s3://b/w.pt", "revision": "main"},
        "--revision is for the published file: leave out --revision or --weights",
    ),
    "revision of the embedded": (
        {"checkpoint": "demo-synthetic", "revision": "main"},
        "--revision is for published files, and demo-synthetic is embedded: leave it out",
    ),
    "weights": (
        {"weights": "absent.pt"},
        "no weights file 'absent.pt'; give a .pt or .safetensors file or its URL",
    ),
    "password": (
        {"input": "https://me:secret@host/faces.txt"},
        "a URL with a password in it ('...@host/faces.txt'): give it by --storage-options FILE",
    ),
    "no inputs": ({"input": ()}, "no input; give a folder, a manifest or a URL"),
    "a missing one of two inputs": ({"input": ("faces", "nowhere")}, "no folder or manifest 'nowhere'; check the path"),
    "output URL is inside": (
        {"input": "s3://bucket/faces/", "output": "s3://bucket/faces/out"},
        "output 's3://bucket/faces/out' lies inside the input; choose a prefix outside it",
    ),
    "secret options": (
        {"storage_options": '{"key": "AKIA", "secret": "s3cr3t"}'},
        "--storage-options has 'key' on the command line, where every user of the machine can read it; put the JSON "
        "into a file and name the file, or use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "client": ({"s3_client": "boto"}, "--s3-client boto: choose one of s3fs, obstore"),
    "parser": ({"parser": "mine"}, "--parser mine: give MODULE:CLASS, like my_package.parsers:Mine"),
    "most errors": ({"max_errors": -1}, "--max-errors -1: give a whole number from 0 up"),
    "no input": ({"input": "nowhere"}, "no folder or manifest 'nowhere'; check the path"),
    "no manifest": (
        {"input": "faces/notes.md"},
        "'faces/notes.md' is neither a folder nor a manifest (.txt, .csv, .parquet, .tar); give the folder it is in",
    ),
    "landmarks": (
        {"checkpoint": "swinb_lapa_224"},
        "swinb_lapa_224 crops each face by five (or LaPa's 106) landmarks, which a folder does not have; give a "
        "manifest with a column 'landmarks', or --faces detect, which finds them",
    ),
    "given": (
        {"faces": "given"},
        "convnext_celeba_512 crops each face by five, 68 or 106 landmarks or its box, which a folder does not have; "
        "give a manifest with a column 'landmarks' or 'box', or --faces detect, which finds them",
    ),
    "detection": ({"min_face": 50}, "--min-face is for --faces detect: add that, or leave it out"),
    "mask space": ({"mask_space": "photo"}, "--mask-space photo: choose one of crop, image"),
    "output is a file": ({"output": "list.csv"}, "'list.csv' is a file; name a folder for the output"),
    "output is in use": ({"output": "faces"}, "'faces' holds other files; name a new or empty folder for the output"),
    "output is inside": (
        {"output": "faces/out"},
        "output 'faces/out' lies inside the input folder; choose a folder outside it",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_setting_is_answered_with_its_cure(faces: Path, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(faces.parent)
    settings, message = MISTAKES[mistake]
    with pytest.raises((ValueError, OSError)) as caught:
        Job(**{"input": "faces", "output": "out"} | settings)
    assert str(caught.value) == message


def test_good_settings_are_taken(faces: Path, tmp_path: Path) -> None:
    Job(str(faces), str(tmp_path / "out"))
    Job(str(tmp_path / "list.csv"), str(tmp_path / "out"), checkpoint="swinb_lapa_224", actors=(1, 4), threads=2)
    Job(str(tmp_path / "list.csv"), str(tmp_path / "out"), checkpoint="swinb_lapa_224", decode="fast")
