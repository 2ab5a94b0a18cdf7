"""Train a family of small language models on text that ships with Python, and write ONNX files.

    python models/language.py --out build/lm          # about 20 minutes on two cores

The folder gets one `.onnx` file per size, `calibration.npz` and `eval.npz` for all of them
(`tokens` and, in the latter, `labels`), and `family.json` with each size's parameters and held-out
loss. Sizes that are there already, made with the same settings from the same text, are kept. Every
size sees the same batches in the same order, in one thread, so results don't depend on the number
of cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from decoder import INPUT_NAME, Decoder, Size, to_onnx
from texts import VOCABULARY, Corpus, load_corpus, windows
from torch import nn

CONTEXT = 128
CALIBRATION_WINDOWS, EVALUATION_WINDOWS = 128, 256
FAMILY = (
    Size("lm-12k", 32, 1, 2),
    Size("lm-28k", 48, 1, 3),
    Size("lm-98k", 64, 2, 4),
    Size("lm-221k", 96, 2, 4),
    Size("lm-590k", 128, 3, 4),
    Size("lm-1327k", 192, 3, 6),
)


@dataclass(frozen=True)
class Settings:
    """What a training run depends on, besides size and text."""

    steps: int = 4000
    batch: int = 16
    rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    seed: int = 7

    def rate_at(self, step: int, width: int) -> float:
        """Learning rate: linear warm-up, cosine to a tenth; wider networks take smaller steps."""
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        factor = (step + 1) / self.warmup if done < 0 else 0.55 + 0.45 * math.cos(math.pi * done)
        return self.rate * (64 / width) ** 0.5 * min(1.0, factor)


def loss_of(network: Decoder, batch: torch.Tensor) -> torch.Tensor:
    """Nats per token of windows [N, T + 1]."""
    logits = network(batch[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(network: Decoder, held_out: np.ndarray) -> float:
    """Mean nats per token of windows [n, T + 1]."""
    parts = torch.from_numpy(held_out).split(32)
    return sum(float(loss_of(network, part)) * len(part) for part in parts) / len(held_out)


def train(
    size: Size, settings: Settings, text: np.ndarray, context: int = CONTEXT
) -> tuple[Decoder, list[float]]:
    """A trained network and the loss of every step."""
    torch.manual_seed(settings.seed)
    network = Decoder(size, VOCABULARY, context)
    matrices = [p for p in network.parameters() if p.dim() == 2]
    vectors = [p for p in network.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay},
         {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    places = np.random.default_rng(settings.seed)
    losses = []
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(step, size.width)
        starts = places.integers(0, len(text) - context, settings.batch)
        batch = np.stack([text[start : start + context + 1] for start in starts]).astype(np.int64)
        loss = loss_of(network, torch.from_numpy(batch))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 250 == 0:
            print(f"{size.name}: step {step}, {losses[-1]:.3f} nats", flush=True)
    return network.eval(), losses


def describe(network: Decoder, size: Size) -> dict[str, Any]:
    """Parameters of the body, and apart from it those of embedding, positions, head and norms."""
    counts = {name: p.numel() for name, p in network.named_parameters()}
    named = {
        "embedding": counts.pop("embedding.weight"),
        "positions": counts.pop("positions"),
        "head": counts.pop("head.weight"),
    }
    norms = sum(count for name, count in counts.items() if "norm" in name)
    assert sum(counts.values()) - norms == size.body
    return {**asdict(size), "body": size.body, **named, "norms": norms}


def make(size: Size, settings: Settings, folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Train one size, write its ONNX file, and describe it for `family.json`."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    start = time.perf_counter()
    network, losses = train(size, settings, corpus.training)
    held_out = held_out_loss(network, windows(corpus.held_out, EVALUATION_WINDOWS, CONTEXT))
    onnx.save(to_onnx(network), folder / f"{size.name}.onnx.part")
    (folder / f"{size.name}.onnx.part").replace(folder / f"{size.name}.onnx")
    entry = {
        **describe(network, size),
        "loss": round(held_out, 5),
        "training_loss": round(float(np.mean(losses[-100:])), 5),
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(f"{size.name}: {held_out:.4f} nats per token held out, {entry['seconds']} s", flush=True)
    return entry


def write_data(folder: Path, corpus: Corpus) -> None:
    """`calibration.npz` from the training text, `eval.npz` from what was held out."""
    calibration = windows(corpus.training, CALIBRATION_WINDOWS, CONTEXT)[:, :-1]
    evaluation = windows(corpus.held_out, EVALUATION_WINDOWS, CONTEXT)
    np.savez_compressed(folder / "calibration.npz", **{INPUT_NAME: calibration})
    np.savez_compressed(
        folder / "eval.npz", labels=evaluation[:, 1:], **{INPUT_NAME: evaluation[:, :-1]}
    )


def make_family(
    folder: Path, sizes: tuple[Size, ...], settings: Settings, jobs: int
) -> dict[str, Any]:
    """Everything the folder is to hold; returns the content of `family.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus()
    record = folder / "family.json"
    made_of = {"settings": asdict(settings), "context": CONTEXT, "text": corpus.digest}
    family: dict[str, Any] = {**made_of, "python": platform.python_version(), "models": {}}
    if record.is_file():
        old = json.loads(record.read_text("utf-8"))
        if all(old.get(key) == value for key, value in made_of.items()):
            family["models"] = {
                name: entry
                for name, entry in old["models"].items()
                if (folder / f"{name}.onnx").is_file()
            }
    write_data(folder, corpus)
    todo = [size for size in sizes if size.name not in family["models"]]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        # The largest first: it alone decides how long everything takes.
        started = [
            pool.submit(make, size, settings, folder, corpus)
            for size in sorted(todo, key=lambda size: -size.body)
        ]
        for future in as_completed(started):
            entry = future.result()
            family["models"][entry["name"]] = entry
            ordered = sorted(family["models"].values(), key=lambda entry: entry["body"])
            family["models"] = {entry["name"]: entry for entry in ordered}
            record.write_text(json.dumps(family, indent=2) + "\n", "utf-8")
    return family


def main() -> None:
    """Train the family and print its held-out losses."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--sizes", nargs="+", choices=[s.name for s in FAMILY], help="only these")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    sizes = tuple(s for s in FAMILY if not options.sizes or s.name in options.sizes)
    settings = Settings(steps=options.steps, seed=options.seed)
    family = make_family(options.out, sizes, settings, options.jobs)
    for name, entry in family["models"].items():
        print(f"{name:10} body {entry['body']:>9,}  {entry['loss']:.4f} nats per token held out")


if __name__ == "__main__":
    main()
