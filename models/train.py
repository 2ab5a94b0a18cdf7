"""Train the example networks on scikit-learn's digits and write their ``.onnx`` files.

    python models/train.py            # about a minute; writes models/*.onnx

The seed is fixed; the committed files were made by this script.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from digits import INPUT_NAME, load_digits
from networks import NETWORKS
from torch import nn

SEED, EPOCHS, BATCH = 7, 60, 64


def _shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by up to one pixel."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    rows, columns = torch.randint(0, 3, (2, len(images)), generator=generator)
    return torch.stack(
        [p[:, r : r + 8, c : c + 8] for p, r, c in zip(padded, rows, columns, strict=True)]
    )


def train(name: str) -> nn.Module:
    """A trained network in evaluation mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels, test_images, test_labels = (torch.from_numpy(a) for a in load_digits())
    network = NETWORKS[name]()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            probabilities = network(_shifted(images[batch], generator))
            loss = nn.functional.nll_loss(probabilities.clamp_min(1e-9).log(), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        correct = (network(test_images).argmax(1) == test_labels).numpy()
    print(f"{name}: {np.mean(correct):.4f} on {len(correct)} images")
    return network


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().out
    torch.use_deterministic_algorithms(True)
    for name in NETWORKS:
        network = train(name)
        torch.onnx.export(
            network,
            (torch.zeros(1, 1, 8, 8),),
            str(folder / f"{name}.onnx"),
            input_names=[INPUT_NAME],
            output_names=["probabilities"],
            dynamic_axes={INPUT_NAME: {0: "N"}, "probabilities": {0: "N"}},
            opset_version=17,
            dynamo=False,
        )


if __name__ == "__main__":
    main()
