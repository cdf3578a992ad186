"""The end of a run in a few lines: images and faces are counted apart."""

from __future__ import annotations

from segface_batch.pipeline.summary import Summary, report


def test_images_and_faces_are_counted_apart() -> None:
    summary = Summary("out", {"no_face": 1, "ok": 9}, {"no_face": 1, "ok": 14}, {}, {".md files": 2}, 10, 4.0)
    assert summary.images == 10
    assert report(summary).splitlines() == [
        "10 images: 9 with faces, 1 without; 14 faces",
        "  also in the input: 2 .md files",
        "  this run: 10 images in 4 s, 2.5 images/s",
        "  in out: stats, shapes and masks (Parquet)",
        "next: segface-batch query out \"select * from stats where status = 'ok' limit 5\"",
        "      segface-batch show out IMAGE_ID",
    ]


def test_errors_are_counted_by_their_word_the_most_frequent_first() -> None:
    errors = {"empty": 1, "missing": 2}
    lines = report(Summary("my out", {"error": 3, "ok": 1}, {"error": 3, "ok": 2}, errors, {}, 0, 0.0)).splitlines()
    assert lines[:3] == [
        "4 images: 1 with faces, 3 with errors; 2 faces",
        "  errors: 2 missing, 1 empty",
        "  no image was left to annotate",
    ]
    assert lines[-1] == "      segface-batch show 'my out' IMAGE_ID"
