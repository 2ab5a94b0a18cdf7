"""Flash, RAM and instructions of one network on a microcontroller in several compressed forms.

    python benchmarks/mcu_formats.py [--model kws] [--target cortex-m4]
                                     [--recipes int8 float w4-g128 nf4-b64 w3-bcq w8a8]

Keyword spotting (DS-CNN of MLPerf Tiny) unless told otherwise. Sizes come from the linked ELF,
instructions from the emulator, which is not cycle-accurate; accuracy is the share of `--samples`
clips of the evaluation set that the firmware gets right. Firmware must agree with the oracle, or
the run fails. Models and data are in ``../shared`` and no part of this repository.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fewbits.compiler import driver
from fewbits.compiler.artifact import Artifact
from fewbits.compiler.options import Options

SHARED = Path(__file__).resolve().parents[2] / "shared"
RECIPES = ("int8", "float", "w4-g128", "nf4-b64", "w3-bcq", "w8a8")


def task_of(name: str) -> Any:
    """The real model and its data."""
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = module  # its dataclasses look their module up
    specification.loader.exec_module(module)
    return module.load(name)


def measure(task: Any, recipe: str, target: str, samples: int) -> list[str]:
    """One row of the table."""
    evaluation = {key: value[:samples] for key, value in task.inputs.items()}
    evaluation["labels"] = np.asarray(task.labels[:samples])
    with tempfile.TemporaryDirectory() as folder:
        artifact = driver.compile(
            str(task.model),
            Path(folder) / "build",
            Options(target=target, recipe=recipe),
            task.calibration,
            evaluation=evaluation,
        )
        assert isinstance(artifact, Artifact)
        found = artifact.manifest
    return [
        recipe,
        f"{found['flash_bytes']:,}",
        f"{found['weights_bytes']:,}",
        f"{found['ram_bytes']:,}",
        f"{found['instructions_per_inference']:,}",
        "" if found["score"] is None else f"{found['score']:.3f}",
        f"{found['evaluation']['exact']} of {found['evaluation']['samples']}",
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="kws")
    parser.add_argument("--target", default="cortex-m4")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--samples", type=int, default=20)
    asked = parser.parse_args()
    task = task_of(asked.model)
    print("| recipe | flash B | constants B | RAM B | instructions | accuracy | as the oracle |")
    print("|---|---|---|---|---|---|---|")
    for recipe in asked.recipes:
        row = measure(task, recipe, asked.target, asked.samples)
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
