"""Whole transformers on the emulated GPU: how far results are from the oracle's, and launches.

    python benchmarks/cuda_accuracy.py [--models minilm stories260k stories260k-step]
        [--recipes w8a8-smooth fp8] [--architectures sm_80 sm_90a] [--tokens 16]

Each model is compiled with each recipe, run on the emulated GPU of each architecture, and compared
with the oracle, which rounds no activations to half. *difference* is the length of the difference
as a share of the output's; *allowed* is where compiling fails. *launches* are kernels of one call;
*per block* divides them by the model's blocks, what is before and after them included. The emulated
GPU says nothing about time. Models and data are in ``../shared`` and not part of this repository.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from fewbits import FewbitsError
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from fewbits.targets.cuda.emulator import install, reset, statistics

SHARED = Path(__file__).resolve().parents[2] / "shared"
#: Options on top of a recipe's, by the name that the table has.
RECIPES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "float": ("float", {}),
    "w8a8-smooth": ("w8a8-smooth", {}),
    "llm-int8": ("llm-int8", {}),
    "llm-int8 dynamic": ("llm-int8", {"split_outliers": {"mode": "dynamic"}}),
    "fp8": ("fp8", {}),
    "w4-g64-gptq": ("w4-g64-gptq", {}),
    "nf4-b64": ("nf4-b64", {}),
}
SAMPLES = 8


@dataclasses.dataclass(frozen=True)
class Model:
    """A transformer: its file, how many blocks it has, samples with a first axis of one."""

    path: Path
    blocks: int
    samples: list[dict[str, np.ndarray]]


def shared_data() -> ModuleType:
    """The module that knows where models and data are."""
    path = SHARED / "realdata.py"
    if not path.exists():
        sys.exit(f"{path} is missing: models and data are not part of this repository")
    specification = importlib.util.spec_from_file_location("realdata", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = module
    specification.loader.exec_module(module)
    return module


def open_model(name: str, tokens: int) -> Model:
    """A model with samples of so many tokens; of one token and so long a cache for a step."""
    if name == "stories260k-step":
        path = SHARED / "models" / "llama_stories260k_step_fp32.onnx"
        rng = np.random.default_rng(0)
        cache = (1, 5, 1, 4, tokens, 8)
        samples = [
            {
                "token": rng.integers(1, 512, (1, 1, 1)),
                "pos": np.full(1, tokens, np.int64),
                "past_k": rng.standard_normal(cache).astype(np.float32),
                "past_v": rng.standard_normal(cache).astype(np.float32),
            }
            for _ in range(SAMPLES)
        ]
        return Model(path, 5, samples)
    task = shared_data().load(name)
    blocks = {"minilm": 6, "stories260k": 5}[name]
    samples = [
        {key: array[place : place + 1, :tokens] for key, array in task.calibration.items()}
        for place in range(SAMPLES)
    ]
    return Model(task.model, blocks, samples)


def measure(name: str, model: Model, recipe: str, architecture: str) -> str:
    """A row of the table."""
    install(architecture)
    base, options = RECIPES[recipe]
    with tempfile.TemporaryDirectory() as folder:
        try:
            artifact = compile_model(
                model.path,
                Path(folder) / "out",
                target=f"cuda-{architecture.replace('_', '')}",
                recipe=base,
                calibration=model.samples,
                pass_options=options,
                tuning=None,
                golden=2,
            )
        except FewbitsError as error:
            return f"{name:18s} {recipe:18s} {architecture:8s} {error}"
        golden = artifact.manifest["golden"]
        loaded = load(artifact.folder)
        loaded(**model.samples[0])
        reset()
        loaded(**model.samples[0])
        launches = statistics().launches
    return (
        f"{name:18s} {recipe:18s} {architecture:8s} {golden['difference']:10.2e} "
        f"{golden['allowed']:8.0e} {launches:8d} {launches / model.blocks:9.1f}"
    )


def main() -> None:
    """Prints the table, a row at a time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["minilm", "stories260k"])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--architectures", nargs="+", default=["sm_80", "sm_90a"])
    parser.add_argument("--tokens", type=int, default=16)
    arguments = parser.parse_args()
    print(
        f"{'model':18s} {'recipe':18s} {'GPU':8s} {'difference':>10s} {'allowed':>8s} "
        f"{'launches':>8s} {'per block':>9s}"
    )
    for name in arguments.models:
        model = open_model(name, arguments.tokens)
        for recipe in arguments.recipes:
            for architecture in arguments.architectures:
                print(measure(name, model, recipe, architecture), flush=True)


if __name__ == "__main__":
    main()
