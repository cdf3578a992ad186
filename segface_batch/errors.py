"""Why an image or a face has no mask: every word of the column `error`, and the error that stops a run.

Standard library only.
"""

from __future__ import annotations

#: Each word of the column `error` and what it says about the image.
ERRORS = {
    "bad_box": "a given box that is not four numbers, is empty, or has its middle outside the image",
    "bad_labels": "not a mask of class ids: JPEG, colours, more than 8 bits, or an id that the class table lacks",
    "bad_landmarks": "landmarks of the wrong number, not numbers, all in one place or outside the image",
    "bad_uri": "a path or URL that nothing can have: malformed, or of a scheme that is unknown or lacks its package",
    "changed": "its size is not that in the plan, or it changed while it was read",
    "crashed": "the process that reads or labels it dies, every time",
    "empty": "no bytes at all",
    "forbidden": "no permission to read it",
    "missing": "no file or object of that name, or null in a Parquet file",
    "no_landmarks": "the face is to be cropped by landmarks, and the manifest or Parquet file has none for it",
    "not_a_file": "a folder, pipe or device",
    "too_large": "more pixels or bytes than allowed, or a JPEG of more than 500 scans",
    "truncated": "it ends earlier than its own headers or markers say",
    "unfetchable": "reading failed: disk, network or server",
    "unreadable": "not an image of a known format, or damaged, or floating-point, 32-bit or signed pixels",
}


class ImageError(ValueError):
    """One image or face that gets an error row; the message is a key of `ERRORS` and nothing else."""

    def __init__(self, word: str) -> None:
        if word not in ERRORS:
            raise KeyError(f"'{word}' is not in segface_batch.errors.ERRORS")
        super().__init__(word)


class FatalError(RuntimeError):
    """What must stop the run, in one line: every further unit would meet it too."""
