"""Makes segface_batch/assets/mtcnn.safetensors from facenet-pytorch's wheel (2.6.0, MIT).

pip download --no-deps facenet-pytorch==2.6.0
python pipelines/convert_mtcnn.py facenet_pytorch-2.6.0-py3-none-any.whl mtcnn.safetensors
"""

import io
import sys
import zipfile

import torch
from safetensors.torch import save_file


def main(wheel: str, file: str) -> None:
    tensors = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in ("pnet", "rnet", "onet"):
            content = io.BytesIO(archive.read(f"facenet_pytorch/data/{name}.pt"))
            state = torch.load(content, weights_only=True)
            tensors |= {f"{name}.{key}": value.half().contiguous() for key, value in state.items()}
    save_file(tensors, file, {"source": "facenet-pytorch 2.6.0", "license": "MIT", "format": "pt"})


if __name__ == "__main__":
    main(*sys.argv[1:])
