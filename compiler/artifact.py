"""What compilation leaves behind: a folder with a manifest, and how to use it again.

`load` gives a callable whatever the target: real values in and out, named as in the ONNX model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import FewbitsError
from ..targets.catalogue import get_target
from .files import write_file

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1

#: What running, verifying and reporting rely on: always, and by family of targets.
_KEYS = frozenset({"model", "target", "recipe", "calibration", "inputs", "outputs", "layers"})
_KEYS_OF_KIND = {
    "mcu": frozenset(
        {"function", "macs", "ram_bytes", "flash_bytes", "text_bytes", "weights_bytes",
         "instructions_per_inference", "float_layers"}
    ),
    "cpu": frozenset({"library", "features", "machine", "library_bytes", "weight_bits"}),
    "cuda": frozenset(
        {"library", "architectures", "machine", "float", "library_bytes", "weight_bits"}
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output of the compiled model.

    Attributes:
        name: its name in the ONNX model.
        shape: of one inference, batch axis included; symbolic dimensions by name.
        dtype: of the codes that the product takes or gives.
        scale: real value of one step, None where codes are the values themselves.
        zero_point: code of real 0.
        real_dtype: dtype of the real values.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    scale: float | None
    zero_point: int
    real_dtype: str

    @property
    def real(self) -> Port:
        """The same for real values."""
        return Port(self.name, self.shape, self.real_dtype, None, 0, self.real_dtype)

    def to_codes(self, real: np.ndarray) -> np.ndarray:
        """Codes of real values: divided by the scale, rounded half to even, saturated."""
        if self.scale is None:
            return np.asarray(real).astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.rint(np.asarray(real, np.float32) / np.float32(self.scale)) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def to_real(self, codes: np.ndarray) -> np.ndarray:
        """Real values of codes."""
        if self.scale is None:
            return codes.astype(self.real_dtype)
        return ((codes.astype(np.float32) - self.zero_point) * np.float32(self.scale)).astype(
            self.real_dtype
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Port:
        """From the manifest's form."""
        return cls(
            str(data["name"]),
            tuple(d if isinstance(d, str) else int(d) for d in data["shape"]),
            str(data["dtype"]),
            None if data["scale"] is None else float(data["scale"]),
            int(data["zero_point"]),
            str(data["real_dtype"]),
        )


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A compiled model's folder.

    Attributes:
        folder: where it lies.
        manifest: the content of ``manifest.json``.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The model's inputs in order."""
        return tuple(Port.from_dict(port) for port in self.manifest["inputs"])

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The model's outputs in order."""
        return tuple(Port.from_dict(port) for port in self.manifest["outputs"])

    @property
    def target(self) -> str:
        """The target's name."""
        return str(self.manifest["target"])

    @property
    def kind(self) -> str:
        """The family of the target.

        Raises:
            FewbitsError: ``unknown-target``.
        """
        return get_target(self.target).kind

    def save_manifest(self) -> None:
        """Write the manifest anew, e.g. after `verify` has added a score."""
        write_file(self.folder / MANIFEST, manifest_text(self.manifest))


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as it is stored: stable order, one item a line."""
    return json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def open_artifact(folder: str | Path) -> Artifact:
    """The artifact in a folder.

    Raises:
        FewbitsError: ``not-an-artifact``.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    hint = "give the folder that `fewbits compile --out` wrote"
    if not path.is_file():
        raise FewbitsError(
            "not-an-artifact", f"no {MANIFEST} in {str(folder)!r}", where=str(folder), hint=hint
        )
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version = manifest["fewbits"]["manifest"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FewbitsError(
            "not-an-artifact", f"cannot read the manifest: {error}", where=str(path), hint=hint
        ) from error
    if version != MANIFEST_VERSION:
        raise FewbitsError(
            "not-an-artifact",
            f"the manifest has version {version}, this fewbits ({__version__}) reads "
            f"{MANIFEST_VERSION}",
            where=str(path),
            hint="compile the model again",
        )
    artifact = Artifact(folder, manifest)
    try:
        known = [*artifact.inputs, *artifact.outputs]
        keys = _KEYS | _KEYS_OF_KIND[artifact.kind]
        whole = all(port.shape is not None for port in known) and manifest.keys() >= keys
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise FewbitsError(
            "not-an-artifact", "the manifest is incomplete", where=str(path), hint=hint
        )
    return artifact


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder by relative path, the manifest and reports excepted."""
    skip = {MANIFEST, "report.html", "report.json"}
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in skip
    }
