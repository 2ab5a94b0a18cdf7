"""A sweep as a table: one row for each cell, in CSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_file

#: Columns and their types; tables always have all of them.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(
        ("model", "model_family", "recipe", "family", "format", "block", "solver", "target",
         "passes", "status", "error", "metric"),
        str,
    ),
    "bits": int,
    **dict.fromkeys(("quality", "nats", "accuracy", "cosine", "sqnr_db", "agreement"), float),
    **dict.fromkeys(
        ("samples", "total_bits", "body_bits", "embedding_bits", "head_bits", "rest_bits",
         "code_bits", "metadata_bits", "body_weights"),
        int,
    ),
    "bits_per_weight": float,
    "instructions": int,
    "latency_ms": float,
    "latency_median_ms": float,
    "file_bytes": int,
    "seconds": float,
    "seed": int,
    "key": str,
}  # fmt: skip


def row_of(description: Mapping[str, Any], outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a cell that has ended."""
    result = outcome.get("result") or {}
    error = outcome.get("error")
    merged = {**description, **result, "status": outcome["status"], "seconds": outcome["seconds"]}
    merged["passes"] = "; ".join(description["passes"])
    merged["error"] = f"{error['code']}: {error['message']}" if error else ""
    if result.get("body_weights"):
        merged["bits_per_weight"] = result["body_bits"] / result["body_weights"]
    return {name: merged.get(name) for name in COLUMNS}


def write_tables(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``results.csv`` and ``results.parquet``.

    Raises:
        FewbitsError: ``output-not-writable``.
    """
    import pyarrow
    from pyarrow import parquet

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(folder / "results.csv", text.getvalue())
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    write_file(folder / "results.parquet", sink.getvalue().to_pybytes())
