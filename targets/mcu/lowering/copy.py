"""A copy of a buffer, where an output would otherwise share memory with something else."""

from __future__ import annotations

from ..program import Buffer, KernelCall


def copy_call(layer: str, source: Buffer, to: Buffer) -> KernelCall:
    """Copy all bytes of `source` to `to`."""
    return KernelCall(
        layer=layer,
        operator="copy",
        function="fb_copy",
        header="move.h",
        arguments=(to, source, source.bytes),
        inputs=(source,),
        outputs=(to,),
        overlap=(None,),
    )
