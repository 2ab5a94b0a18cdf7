"""Results of the emulated GPU, kept beside the libraries, and compared with those of a real one.

What agrees bit for bit shows that the emulated GPU means what the hardware means, and the other way
round. Integers must agree so. Floats may differ in the order in which tensor cores add.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .build import PLAN
from .cases import Product, from_plan
from .run import FIELDS, launch
from .values import arguments, disagreement

RESULTS = "emulated.npz"


def results(folder: Path, reference: str) -> dict[str, tuple[np.ndarray, int, str | None]]:
    """Results of all products in a folder: by title, with a sum over the inputs and what is wrong.

    Args:
        folder: of `build`.
        reference: where torch computes references: ``cuda`` or ``cpu``.
    """
    import tvm

    found = {}
    for entry in json.loads((folder / PLAN).read_text("utf-8"))["cases"]:
        case = from_plan({k: v for k, v in entry.items() if k in FIELDS})
        if not isinstance(case, Product) or "missing" in entry:
            continue
        given = arguments(case, entry, folder)
        crc = 0
        for array in (given.x, *given.weight, *given.operands):
            crc = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, crc)
        _, result = launch(entry, folder, tvm.cuda(0), given)
        found[case.title] = (result, crc, disagreement(case, given, result, reference))
    return found


def keep(folder: Path) -> dict[str, str | None]:
    """Run everything on the emulated GPU and keep the results; by title, what is wrong."""
    found = results(folder, "cpu")
    arrays: dict[str, Any] = {title: result for title, (result, _, _) in found.items()}
    arrays |= {f"{title} crc": np.array(crc) for title, (_, crc, _) in found.items()}
    np.savez_compressed(folder / RESULTS, **arrays)
    return {title: wrong for title, (_, _, wrong) in found.items()}


def compared(folder: Path, reference: str = "cuda") -> list[tuple[str, bool, str]]:
    """Run everything on the GPU: title, whether it passes, and in words."""
    rows = []
    with np.load(folder / RESULTS) as kept:
        for title, (result, crc, wrong) in results(folder, reference).items():
            if wrong is not None:
                rows.append((title, False, wrong))
            elif crc != int(kept[f"{title} crc"]):
                rows.append((title, False, "numpy here draws other inputs than where it was built"))
            else:
                rows.append((title, *_words(title, result, kept[title])))
    return rows


def _words(title: str, result: np.ndarray, emulated: np.ndarray) -> tuple[bool, str]:
    differ = int((result.view(np.uint16) != emulated.view(np.uint16)).sum())
    if not differ:
        return True, "right, and the emulated GPU's bits"
    away = float(np.abs(result.astype(np.float64) - emulated.astype(np.float64)).max())
    share = f"{differ} of {result.size} differ from the emulated GPU's, by {away:.2g} at most"
    return not title.startswith("int8,"), share
