"""Train a SegFace checkpoint, or fine-tune a published one, on a folder of images and label maps.

    python -m pipelines.demo_model.train faces/ model.safetensors --checkpoint mobilenet_celeba_512 --epochs 10
    segface-batch annotate my_faces/ out/ --checkpoint mobilenet_celeba_512 --weights model.safetensors

The folder is laid out like LaPa: images/NAME.jpg (or .png), labels/NAME.png (8-bit class ids), and for LaPa's and
Helen's checkpoints landmarks/NAME.txt (the number of points, then x and y of each in a line).  Loss and optimiser are
SegFace's: half cross-entropy and half Dice, AdamW, milestones (arXiv 2412.08647).  What is written are the weights
averaged over the last steps.  A run that was killed goes on from its last epoch, kept in TARGET.state: the same command
again is enough.  On several GPUs, or CPU processes, start it with `torchrun --nproc-per-node N -m ...`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segface_batch import catalog


def train(settings: argparse.Namespace) -> None:
    published = catalog.find(settings.checkpoint)
    if not settings.faces.is_dir():
        raise FileNotFoundError(f"no folder '{settings.faces}'; give one with images/ and labels/")
    if not settings.target.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder '{settings.target.parent}' for {settings.target.name}; make it first")
    import numpy as np
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, DistributedSampler

    from pipelines.demo_model.learning import Faces, Training, measured, rarity
    from segface_batch.model import weights
    from segface_batch.model.segface import SegFace

    checkpoint = replace(published, resolution=settings.size or published.resolution)
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if processes > 1:
        distributed.init_process_group("nccl" if cuda else "gloo")
    torch.manual_seed(settings.seed)
    if settings.random:
        network = SegFace(checkpoint)
    else:
        network = weights.load(checkpoint, weights.locate(checkpoint, settings.weights)).requires_grad_(True)
    network = network.to(device)
    forward = DistributedDataParallel(network) if processes > 1 else network

    faces = Faces(settings.faces, checkpoint, varied=True)
    if len(faces) < settings.batch_size * processes:
        raise ValueError(f"'{settings.faces}' has {len(faces)} faces, less than one batch; give a smaller --batch-size")
    held_out = Faces(settings.held_out, checkpoint) if settings.held_out else None
    sampler = DistributedSampler(faces, processes, rank, seed=settings.seed)
    loader = DataLoader(faces, settings.batch_size, sampler=sampler, num_workers=settings.workers, drop_last=True)
    class_weights = rarity(faces, settings.balance).to(device)
    training = Training.of(network, settings, len(loader))
    kept = settings.target.with_name(f"{settings.target.name}.state")
    first, scores = 0, dict[str, float | None]()
    if kept.exists():
        saved = torch.load(kept, map_location=device, weights_only=True)
        first, scores = saved["epoch"], saved["scores"]
        for name, part in training.parts().items():
            part.load_state_dict(saved[name])

    for epoch in range(first, settings.epochs):
        sampler.set_epoch(epoch)
        torch.manual_seed(settings.seed + 1000 * (epoch + 1) + rank)
        begun = time.monotonic()
        mean_loss = training.epoch(forward, loader, class_weights)
        if rank > 0:
            continue
        rate = processes * settings.batch_size * len(loader) / (time.monotonic() - begun)
        line = f"epoch {epoch + 1}/{settings.epochs}: loss {mean_loss:.4f}, {rate:.1f} images/s"
        last = epoch + 1 == settings.epochs
        if held_out and ((epoch + 1) % settings.check_every == 0 or last):
            found = measured(training.average.module, held_out, settings.batch_size)  # pyright: ignore[reportArgumentType]
            scores = {name: None if np.isnan(score) else round(score, 4) for name, score in found.items()}
            each = ", ".join(f"{name} {score:.2f}" for name, score in found.items())
            line += f", mean F1 {np.nanmean(list(found.values())):.4f}: {each}"
        print(line, file=sys.stderr, flush=True)
        unfinished = kept.with_name(f"{kept.name}.new")
        state = {name: part.state_dict() for name, part in training.parts().items()}
        torch.save({"epoch": epoch + 1, "scores": scores, **state}, unfinished)
        os.replace(unfinished, kept)
    if rank == 0:
        notes = dict(settings.note)
        if scores:
            notes |= {"f1": json.dumps(scores)}
        dtype = torch.float16 if settings.half else torch.float32
        weights.write(published, training.average.module, settings.target, dtype, notes)  # pyright: ignore[reportArgumentType]
        kept.unlink()
    if processes > 1:
        distributed.destroy_process_group()


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.demo_model.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("faces", type=Path, help="folder with images/ and labels/")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument("--checkpoint", metavar="NAME", required=True, help="see 'segface-batch checkpoints'")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--weights", metavar="FILE", help="where to start (default: the checkpoint's own weights)")
    start.add_argument("--random", action="store_true", help="start from random weights")
    parser.add_argument("--size", metavar="PIXELS", type=int, help="train at this size (default: the checkpoint's)")
    parser.add_argument("--epochs", metavar="N", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="per process (default: %(default)s)")
    parser.add_argument("--lr", metavar="RATE", type=float, default=1e-4, help="default: %(default)s")
    parser.add_argument("--weight-decay", metavar="D", type=float, default=0.05, help="default: %(default)s")
    parser.add_argument("--milestones", metavar="EPOCH", type=int, nargs="+",
                        help="after these the rate falls to a tenth (default: it falls as a cosine)")  # fmt: skip
    parser.add_argument("--balance", metavar="POWER", type=float, default=0.0,
                        help="count a pixel of a class that has the share S of all pixels S^-POWER times "
                             "in the cross-entropy (default: all alike; 0.5 for thin and rare things)")  # fmt: skip
    parser.add_argument("--held-out", metavar="FOLDER", type=Path, help="measure F1 on the pairs of another folder")
    parser.add_argument("--check-every", metavar="N", type=int, default=1, help="epochs between measurements")
    parser.add_argument("--half", action="store_true", help="write float16, half the size")
    parser.add_argument(
        "--note", metavar="KEY=VALUE", type=_note, action="append", default=[], help="goes into the file's metadata"
    )
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="processes that read and vary images")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser


def _note(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is no KEY=VALUE")
    return key, value


def main(words: Sequence[str] | None = None) -> None:
    try:
        train(command_line().parse_args(words))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
