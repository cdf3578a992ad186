"""The demo: the embedded model annotates the embedded faces through the whole pipeline, and the result is scored.

The faces are two photographs in the public domain and images rendered by pipelines/demo_model with their true masks.
"""

from __future__ import annotations

from pathlib import Path

from segface_batch import catalog
from segface_batch.job import Job

ASSETS = Path(__file__).parent / "assets"
FACES, TRUTH = ASSETS / "faces", ASSETS / "truth"

#: Questions about the output, each with the SQL that answers it.
QUERIES: tuple[tuple[str, str], ...] = (
    (
        "What is in the images? (mean share of an image, in percent)",
        "select round(100 * avg(frac_hair), 1) as hair, round(100 * avg(frac_skin), 1) as skin, "
        "round(100 * avg(frac_cloth), 1) as cloth, round(100 * avg(frac_background), 1) as background "
        "from stats where status = 'ok'",
    ),
    (
        "Who wears glasses? (pixels of the mask)",
        "select image_id, px_eye_g from stats where px_eye_g > 150 order by px_eye_g desc limit 5",
    ),
    (
        "Which faces is the model least sure of, and how are they turned? (degrees; -1 to 1)",
        "select image_id, round(confidence, 2) as confidence, low_px, round(roll) as roll, round(yaw_proxy, 2) as yaw "
        "from stats where status = 'ok' order by confidence limit 5",
    ),
    (
        "Is every image accounted for?",
        "select status, error, count(*) as images from stats group by all order by all",
    ),
)


def job(out: str) -> Job:
    """The job that annotates the embedded faces."""
    return Job(str(FACES), out, checkpoint=catalog.DEMO_CHECKPOINT)


def score(out: str) -> str:
    """How well the output of `job` agrees with the renderer's truth, in a few lines."""
    from segface_batch.curate.evaluate import evaluate

    scores = evaluate(out, TRUTH)
    by_f1 = sorted(scores.f1.items(), key=lambda item: item[1])
    worst = min(scores.right, key=lambda image_id: scores.right[image_id])
    return (
        f"mean F1 {scores.mean_f1:.2f} over {len(by_f1)} classes on {len(scores.right)} rendered faces "
        "(against the renderer's truth)\n"
        f"  this is {catalog.DEMO_CHECKPOINT}: {catalog.find(catalog.DEMO_CHECKPOINT).note}\n"
        f"  best:  {', '.join(f'{name} {value:.2f}' for name, value in by_f1[:-6:-1])}\n"
        f"  worst: {', '.join(f'{name} {value:.2f}' for name, value in by_f1[:5])}\n"
        f"  the image with the most wrong pixels: {worst} ({1 - scores.right[worst]:.0%})"
    )
