from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from segface_batch import job as jobs
from segface_batch.command_line import command_line, job as job_of
from segface_batch.job import Job, option, recorded
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.worker import Worker
from tests.stand_in import Quick


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
        "--decode fast is for whole images: leave out that or --faces detect",
    ),
    "decode near of faces": (
        {"decode": "near", "faces": "detect"},
        "--decode near is for whole images: leave out that or --faces detect",
    ),
    "decode fast of given faces": (
        {"decode": "fast", "faces": "given"},
        "--decode fast is for whole images: leave out that or --faces given",
    ),
    "decode fast for Helen": (
        {"decode": "fast", "checkpoint": "swinb_helen_512"},
        "--decode fast is for whole images, and swinb_helen_512 crops each: leave it out",
    ),
    "batch size": ({"batch_size": 0}, "--batch-size 0: give a whole number from 1 up"),
    "actors": ({"actors": (3, 2)}, "--actors 3:2: give MIN:MAX with 1 <= MIN <= MAX"),
    "no actors": ({"actors": (0, 2)}, "--actors 0:2: give MIN:MAX with 1 <= MIN <= MAX"),
    "no GPU": (
        {"device": "cuda", "num_gpus": 0.0},
        "--device cuda with --num-gpus 0: Ray would hide every GPU; leave out --num-gpus",
    ),
    "GPU of a CPU": ({"device": "cpu", "num_gpus": 1.0}, "--device cpu with --num-gpus 1.0: leave out one of them"),
    "negative GPU": ({"num_gpus": -1.0}, "--num-gpus -1.0: give a number from 0 up"),
    "hash": ({"weights_sha256": "abc"}, "--weights-sha256 abc: give 64 lower-case hexadecimal digits"),
    "hash in capitals": (
        {"weights_sha256": "A" * 64},
        f"--weights-sha256 {'A' * 64}: give 64 lower-case hexadecimal digits",
    ),
    "longer hash": (
        {"weights_sha256": "0" * 65},
        f"--weights-sha256 {'0' * 65}: give 64 lower-case hexadecimal digits",
    ),
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
        "a URL with a password in it ('https://host/faces.txt'): use --storage-options FILE for that",
    ),
    "no inputs": ({"input": ()}, "no input; give a folder, a manifest or a URL"),
    "a missing one of two inputs": ({"input": ("faces", "nowhere")}, "no folder or manifest 'nowhere'; check the path"),
    "output URL is inside": (
        {"input": "s3://bucket/faces/", "output": "s3://bucket/faces/out"},
        "output 's3://bucket/faces/out' lies inside the input; choose a prefix outside it",
    ),
    "output URL is inside in other words": (
        {"input": "S3A://Bucket/faces", "output": "s3://bucket/faces/out/"},
        "output 's3://bucket/faces/out/' lies inside the input; choose a prefix outside it",
    ),
    "output with a signature is inside": (
        {"input": "https://host/faces", "output": "https://host/faces/out?sig=s3cr3t"},
        "output 'https://host/faces/out?sig=REDACTED' lies inside the input; choose a prefix outside it",
    ),
    "output is inside the second input": (
        {"input": ("list.csv", "faces"), "output": "faces/out"},
        "output 'faces/out' lies inside the input folder; choose a folder outside it",
    ),
    "output is inside a file URL": (
        {"input": "file://{here}/faces/", "output": "faces/../faces/out"},
        "output 'faces/../faces/out' lies inside the input folder; choose a folder outside it",
    ),
    "output is inside by a link": (
        {"input": "faces", "output": "file://localhost{here}/link/out"},
        "output 'file://localhost{here}/link/out' lies inside the input folder; choose a folder outside it",
    ),
    "output of a file URL is in use": (
        {"output": "file://{here}/faces"},
        "'file://{here}/faces' holds other files; name a new or empty folder for the output",
    ),
    "input is inside": (
        {"input": "s3://bucket/out/faces", "output": "s3://bucket/out"},
        "input 's3://bucket/out/faces' lies inside the output 's3://bucket/out'; choose another output",
    ),
    "input with signatures is inside": (
        {"input": "https://host/out/faces?sig=s3cr3t", "output": "https://host/out?sig=s3cr3t"},
        "input 'https://host/out/faces?sig=REDACTED' lies inside the output 'https://host/out?sig=REDACTED'; choose "
        "another output",
    ),
    "malformed input": (
        {"input": "http://u:p@[::1/list.csv"},
        "a URL with a password in it ('http://[::1/list.csv'): use --storage-options FILE for that",
    ),
    "malformed inputs": (
        {"input": ("faces", "http://[::1/list.csv")},
        "'http://[::1/list.csv' is no URL that can be read; check its scheme and host",
    ),
    "unknown scheme": (
        {"output": "htps://a/out"},
        "'htps://a/out' is no URL that can be read; check its scheme and host",
    ),
    "malformed weights": (
        {"weights": "http://[::1/w.pt?sig=1"},
        "--weights 'http://[::1/w.pt?sig=REDACTED' is no URL that can be read; check it",
    ),
    "weights of a file URL": (
        {"weights": "file:///absent%3F.pt"},
        "no weights file 'file:///absent%3F.pt'; give a .pt or .safetensors file or its URL",
    ),
    "secret options": (
        {"storage_options": '{"key": "AKIA", "secret": "s3cr3t"}'},
        "--storage-options has 'key' on the command line, where every user of the machine can read it; put the JSON "
        "into a file and name the file, or use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "client": ({"s3_client": "boto"}, "--s3-client boto: choose one of s3fs, obstore"),
    "network": ({"network": "mine"}, "--network mine: give MODULE:FACTORY, like my_package.networks:MyNetwork"),
    "network and checkpoint": (
        {"network": "tests.stand_in:Quick", "checkpoint": "swinb_celeba_512"},
        "--network brings its own checkpoint: leave out --checkpoint or --network",
    ),
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
    "measured with a detector": (
        {"class_table": "lapa", "min_face": 50},
        "--min-face is for images, and masks are measured: leave it out",
    ),
    "measured without confidence": (
        {"class_table": "lapa", "confidence": False},
        "--no-confidence is for images, and masks are measured: leave it out",
    ),
    "a map of nothing": (
        {"confidence": False, "confidence_map": True},
        "--confidence-map with --no-confidence: leave out one of them",
    ),
    "detection": ({"min_face": 50}, "--min-face is for --faces detect: add that or leave out --min-face"),
    "small faces": ({"min_face": 11, "faces": "detect"}, "--min-face 11: give a whole number from 12 up"),
    "score": ({"min_score": 1.0, "faces": "detect"}, "--min-score 1.0: give a number between 0 and 1"),
    "lowest score": ({"min_score": 0.0, "faces": "detect"}, "--min-score 0.0: give a number between 0 and 1"),
    "detector": ({"detector": "retina", "faces": "detect"}, "--detector retina: choose one of mtcnn, yunet"),
    "mask space": ({"mask_space": "photo"}, "--mask-space photo: choose one of crop, image"),
    "output is a file": ({"output": "list.csv"}, "'list.csv' is a file; name a folder for the output"),
    "output is in use": ({"output": "faces"}, "'faces' holds other files; name a new or empty folder for the output"),
    "output is inside": (
        {"output": "faces/out"},
        "output 'faces/out' lies inside the input folder; choose a folder outside it",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_setting_is_answered_with_a_hint(faces: Path, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(faces.parent)
    (faces.parent / "link").symlink_to("faces")
    here = str(faces.parent)
    settings: dict[str, Any] = {"input": "faces", "output": "out"} | MISTAKES[mistake][0]
    for name in ("input", "output"):
        if isinstance(settings[name], str):
            settings[name] = settings[name].replace("{here}", here)
    message = MISTAKES[mistake][1].replace("{here}", here)
    with pytest.raises((ValueError, OSError)) as caught:
        Job(**settings)
    assert str(caught.value) == message


def test_good_settings_are_taken(faces: Path, tmp_path: Path) -> None:
    Job(str(faces), str(tmp_path / "out"))
    Job(str(tmp_path / "list.csv"), str(tmp_path / "out"), checkpoint="swinb_lapa_224", actors=(1, 4), threads=2)
    Job(str(tmp_path / "list.csv"), str(tmp_path / "out"), checkpoint="swinb_lapa_224", decode="fast")
    Job("abfs://container@account.dfs.core.windows.net/faces", str(tmp_path / "out"))
    Job(str(faces), str(tmp_path / "faces2"))
    for table in ("celebamask-hq", "lapa", "helen"):  # masks need no landmarks, and are measured on CPUs
        Job(str(faces), str(tmp_path / "out"), class_table=table, device="cpu")
    (tmp_path / "LIST.CSV").touch()
    Job(str(tmp_path / "LIST.CSV"), str(tmp_path / "out"), weights_sha256="0123456789abcdef" * 4)
    (tmp_path / "out" / "_segface").mkdir(parents=True)  # an output to go on with
    Job(str(faces), str(tmp_path / "out"))
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "a.parquet").touch()  # which may have landmarks
    Job(str(tmp_path / "parquet"), str(tmp_path / "out"), checkpoint="swinb_lapa_224")
    for name in ("who? #1 [50%];", "[x", "a@b://c"):
        (tmp_path / name).mkdir(parents=True)
        Job(f"{tmp_path}/{name}", str(tmp_path / "out"), weights=str(faces / "a.jpg"))
        Job((tmp_path / name).as_uri(), (tmp_path / "out" / name).as_uri(), weights=(faces / "a.jpg").as_uri())


def test_the_least_of_each_number_is_taken_and_one_less_refused() -> None:
    for each in dataclasses.fields(Job):
        least = each.metadata.get("least")
        if least is not None:
            about: dict[str, Any] = {"input": "s3://bucket/in", "output": "s3://bucket/out"}
            about |= {"faces": "detect"} if each.metadata["group"] == jobs.DETECTION else {}
            assert getattr(Job(**about | {each.name: least}), each.name) == least
            refusal = f"{jobs.flag(each.name)} {least - 1}: give a whole number from {least} up"
            with pytest.raises(ValueError, match=rf"\A{refusal}\Z"):
                Job(**about | {each.name: least - 1})


def test_every_setting_says_what_it_is_and_whether_a_resume_must_repeat_it() -> None:
    for each in dataclasses.fields(Job):
        about = each.metadata
        assert isinstance(about.get("recorded"), bool), f"{each.name}: recorded by run.json, or not?"
        assert about.get("help"), each.name
        if each.name not in ("input", "output"):
            assert about["group"], each.name
        if each.default is None:
            assert "(default: " in about["help"], f"{each.name}: what is chosen for None?"
        if about.get("choices") is not None:
            assert each.default in about["choices"], each.name


def test_what_a_resume_must_repeat(faces: Path) -> None:
    job = Job(str(faces), "out", columns=("source",), actors=(1, 2), max_faces=3, faces="detect", device="cpu")
    assert recorded(job) == {
        "input": str(faces), "checkpoint": "convnext_celeba_512", "weights_sha256": None, "network": None,
        "engine": "auto", "precision": "fp32", "compile": False, "confidence": True, "confidence_map": False,
        "faces": "detect", "mask_space": "crop",
        "detector": "mtcnn", "min_face": 40, "min_score": 0.95, "max_faces": 3, "decode": "exact",
        "max_pixels": 80_000_000, "columns": ["source"], "image_column": None, "part_rows": 16_384,
    }  # fmt: skip
    assert json.loads(json.dumps(recorded(job))) == recorded(job)


def test_the_command_line_gives_the_same_job(faces: Path) -> None:
    """Every option by its words, with a value other than its default."""
    weights, given = faces / "a.jpg", str(faces)
    settings = {
        "checkpoint": "swinb_celeba_512", "weights": str(weights), "weights_sha256": "0" * 64, "device": "cpu",
        "engine": "torch", "precision": "bf16", "compile": True, "confidence_map": True,
            "faces": "detect", "mask_space": "image",
        "detector": "mtcnn", "min_face": 50, "min_score": 0.5, "max_faces": 3, "max_pixels": 1000,
        "columns": ("a", "b"), "image_column": "photo", "part_rows": 7, "actors": (1, 2), "threads": 3,
        "num_gpus": 0.0, "batch_size": 5, "new": True, "retry_errors": True, "takeover": True, "max_errors": 0,
        "allow_unreadable": True, "s3_client": "obstore",
    }  # fmt: skip
    words = ["annotate", given, given, "out"]
    for name, value in settings.items():
        text = ":".join(map(str, value)) if name == "actors" else ",".join(value) if name == "columns" else str(value)
        words += [jobs.flag(name)] if value is True else [jobs.flag(name), text]
    chosen, unknown = command_line().parse_known_args(words)
    assert unknown == []
    assert job_of(chosen) == Job((given, given), "out", **settings)
    # Which exclude some of these.
    others = {"input", "output", "network", "revision", "decode", "storage_options", "confidence", "class_table"}
    assert {each.name for each in dataclasses.fields(Job)} == settings.keys() | others


def test_confidence_is_on_and_an_option_leaves_it_out(faces: Path) -> None:
    for words, confidence in ((), True), (("--no-confidence",), False):
        chosen, unknown = command_line().parse_known_args(["annotate", str(faces), "out", *words])
        assert (unknown, job_of(chosen)) == ([], Job((str(faces),), "out", confidence=confidence))


def test_the_command_line_of_measure_gives_the_same_job(faces: Path) -> None:
    """Every option by its words; no other is taken."""
    settings = {
        "class_table": "lapa", "max_pixels": 1000, "columns": ("a", "b"), "image_column": "mask", "part_rows": 7,
        "actors": (1, 2), "new": True, "retry_errors": True, "takeover": True, "max_errors": 0,
        "allow_unreadable": True, "storage_options": "{}", "s3_client": "s3fs",
    }  # fmt: skip
    words = ["measure", str(faces), "out"]
    for name, value in settings.items():
        text = ":".join(map(str, value)) if name == "actors" else ",".join(value) if name == "columns" else str(value)
        words += [jobs.flag(name)] if value is True else [jobs.flag(name), text]
    chosen, unknown = command_line().parse_known_args(words)
    assert unknown == []
    assert job_of(chosen) == Job((str(faces),), "out", **settings)
    others = {each.name for each in dataclasses.fields(Job)} - settings.keys() - {"input", "output"}
    assert [name for name in others if hasattr(chosen, name)] == []
    assert "images)" not in chosen.verb.format_help()  # what annotate does without a class table


@dataclasses.dataclass(frozen=True)
class LargerJob(Job):
    """A job with one more setting."""

    sharpness: int = option(1, jobs.MODEL, "how sharp", recorded=True)


class Sharp(Quick):
    """A network that needs it."""

    def __init__(self, job: LargerJob, resources: Resources) -> None:
        self.sharpness = job.sharpness


def test_a_new_setting_reaches_the_network_of_a_worker_and_run_json(faces: Path) -> None:
    sent = LargerJob(str(faces), "memory://out", network="tests.test_job:Sharp", sharpness=7)
    job = pickle.loads(pickle.dumps(sent))
    worker = Worker(job, Resources(num_gpus=0, threads=1), None)
    assert isinstance(worker.network, Sharp)
    assert worker.network.sharpness == 7
    assert recorded(job)["sharpness"] == 7
