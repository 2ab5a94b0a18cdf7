"""Which of onnx's own node cases the importer refuses, and why.

Every other case of a claimed operator is imported, and computes what the case expects, with all
inputs but the first as constants. A test compares this table with what happens, case by case.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from .convert import CLAIMED_OPERATORS

__all__ = ["CLAIMED_OPERATORS", "REFUSED_CASES", "refusal"]

#: Reason to the names of the cases it applies to (shell patterns).
REFUSED_CASES: Mapping[str, tuple[str, ...]] = {
    "values of this element type exist only as constants": (
        "test_cast_*FLOAT8*",
        "test_cast_*FLOAT4*",
        "test_cast_*INT4*",
        "test_cast_*INT2*",
        "test_castlike_*FLOAT8*",
        "test_castlike_*FLOAT4*",
        "test_castlike_*INT4*",
        "test_castlike_*INT2*",
        "test_dequantizelinear_e4m3fn*",
        "test_dequantizelinear_e5m2",
        "test_dequantizelinear_float4e2m1",
        "test_dequantizelinear_*int4",
        "test_dequantizelinear_*int2",
        "test_quantizelinear_e4m3fn",
        "test_quantizelinear_e5m2",
        "test_quantizelinear_float4e2m1",
        "test_quantizelinear_*int4",
        "test_quantizelinear_*int2",
    ),
    "strings": ("test_cast_*STRING*", "test_castlike_*STRING*", "test_equal_string*"),
    "sequences and optionals": ("test_identity_sequence", "test_identity_opt"),
    "training": (
        "test_batchnorm_*_training_mode",
        "test_training_dropout_*",
        "test_training_dropout",
    ),
    "the result's shape is known only at run time": (
        "test_constantofshape_*",
        "test_range_*",
        "test_blackmanwindow_*expanded",
        "test_hammingwindow_*expanded",
        "test_hannwindow_*expanded",
    ),
    "tensors without elements": (
        "test_reduce_*_empty_set*",
        "test_reshape_allowzero_reordered",
        "test_shape_start_greater_than_end",
        "test_slice_start_out_of_bounds",
        "test_split_zero_size_splits_*",
        "test_tri?_zero",
        "test_causal_conv_with_state_kernel_size_one*",
    ),
    "blocked quantization of values computed at run time": (
        "test_dequantizelinear_blocked",
        "test_quantizelinear_blocked_*",
    ),
    "the positions of maxima": ("test_maxpool_with_argmax_*",),
}


def refusal(case: str) -> str | None:
    """Why a node case is refused, or None where it is not."""
    for reason, patterns in REFUSED_CASES.items():
        if any(fnmatchcase(case, pattern) for pattern in patterns):
            return reason
    return None
