"""A network of your own, with a class table of its own: every pixel by its colour.

    PYTHONPATH=. segface-batch annotate segface_batch/assets/faces out --network pipelines.own_network:SkinTone
    segface-batch query out "select image_id, frac_skin, px_dark from stats order by frac_skin desc limit 5"

`--network MODULE:FACTORY` takes any callable with an attribute `checkpoint` that makes an object like this one
(segface_batch.model.network.Network).  The module must be on PYTHONPATH of every node.  The class table gives the
columns of `stats`, and is kept in the output with its colours; `show` and `query` work as with SegFace.
"""

from __future__ import annotations

import numpy as np

from segface_batch.catalog import Checkpoint, Dataset, FaceClass
from segface_batch.job import Job
from segface_batch.model.network import Parsed
from segface_batch.pipeline.resources import Resources

TONES = Dataset(
    "tones",
    (  # the position is the id in the masks
        FaceClass("background", "everything else", (0, 0, 0)),
        FaceClass("dark", "mean of red, green and blue below 60", (102, 60, 150)),
        FaceClass("bright", "mean of red, green and blue above 200", (255, 255, 255)),
        # Its common name gives it the measures of skin, such as skin_light, and a column of the view `common`.
        FaceClass("skin", "coloured like skin", (255, 214, 170), common="skin"),
    ),
    landmarks="",  # a crop brings nothing but its pixels
)


class SkinTone:
    # The name is recorded; crops come as 256 x 256 pixels, 16 together.
    checkpoint = Checkpoint("skin-tone", backbone="none", resolution=256, dataset=TONES, f1=None)
    batch_size = 16

    def __init__(self, job: Job, resources: Resources) -> None:
        """The place to load weights (`job.weights`) onto `resources.device`, with `resources.threads` CPU threads."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        """(B, 256, 256, 3) uint8 RGB -> (B, 256, 256) uint8 class ids."""
        red, green, blue = np.moveaxis(pixels.astype(np.int16), -1, 0)
        # Kovac, Peer and Solina 2003, "Human skin colour clustering for face detection", daylight.
        skin = (red > 95) & (green > 40) & (blue > 20) & (red - green > 15) & (red > blue)
        mean = pixels.mean(axis=-1)
        return Parsed(np.select([skin, mean < 60, mean > 200], [3, 1, 2], default=0).astype(np.uint8))
