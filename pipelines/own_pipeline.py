"""FaceParser inside a Ray Data pipeline of your own: the hair share of every image, sorted.

python pipelines/own_pipeline.py segface_batch/assets/faces/portraits [WEIGHTS]
"""

from __future__ import annotations

import sys

import ray.data

from segface_batch import FaceParser

CHECKPOINT = "mobilenet_celeba_512"


def main(folder: str, weights: str | None = None) -> None:
    files = ray.data.read_binary_files(folder, include_paths=True, file_extensions=["jpg", "png"])
    parsed = files.map_batches(
        FaceParser,
        fn_constructor_kwargs={"checkpoint": CHECKPOINT, "weights": weights},
        batch_size=16,
        concurrency=1,
        num_gpus=0,  # 1 where there is a GPU
    )
    for row in parsed.select_columns(["path", "error", "frac_hair"]).sort("frac_hair").take_all():
        print(f"{row['error'] or format(row['frac_hair'], '.3f')}  {row['path']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
