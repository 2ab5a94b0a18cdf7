"""Handwritten digits that ship with scikit-learn, split once and for all.

1,797 images of 8x8 pixels with 17 grey levels, scaled to 0..1. Run as a program it writes the
calibration and evaluation sets as ``.npz`` files (keys: the model's input name, and ``labels``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

INPUT_NAME = "image"
#: Samples of the shuffled set: training, calibration (from the training part), evaluation.
TRAINING, CALIBRATION = 1297, 100
_SHUFFLE_SEED = 20_260


def load_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(training images, labels, evaluation images, labels); images are float32 [n, 1, 8, 8]."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = (bunch.images / 16.0).astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(images))
    images, labels = images[order], labels[order]
    return images[:TRAINING], labels[:TRAINING], images[TRAINING:], labels[TRAINING:]


def save_sets(folder: Path) -> tuple[Path, Path]:
    """Write ``calibration.npz`` and ``eval.npz``; their paths."""
    images, _, test_images, test_labels = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    calibration, evaluation = folder / "calibration.npz", folder / "eval.npz"
    np.savez_compressed(calibration, **{INPUT_NAME: images[:CALIBRATION]})
    np.savez_compressed(evaluation, **{INPUT_NAME: test_images}, labels=test_labels)
    return calibration, evaluation


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write calibration.npz and eval.npz")
    for path in save_sets(parser.parse_args().folder):
        print(path)
