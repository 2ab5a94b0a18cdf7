"""The float half of LLM.int8: the few columns of x that hold outliers, found while it runs.

A mask says which columns take part. The kernel looks at the mask first and then visits those
columns alone, each a column of the weight decoded on the spot; with no outliers it writes zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics import broadcast, multiply_add
from .intrinsics_emit import (
    bound,
    constant,
    flat,
    index,
    kernel,
    lanes_of,
    product,
    ramp,
    store,
)
from .intrinsics_epilogue import PLAIN, Epilogue, Output
from .weight_only_decode import CodeDecoder, Decoder, stream_code
from .weight_only_scales import GroupScales

#: Rows whose sums a unit of work keeps.
_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class OutlierLinear:
    """``x [..., K], mask [K], words, (table), scales ..., (bias), (addend) -> y [..., N]``.

    Attributes:
        lanes: outputs in a panel.
        leading: sizes of x before the last; None where one is known only at run time.
        length: K.
        outputs: N.
        decoder: of the weight.
        scales: of the outputs; all of a row share one.
        epilogue: what is done to the product before it is stored.
    """

    lanes: int
    leading: tuple[int | None, ...]
    length: int
    outputs: int
    decoder: Decoder
    scales: GroupScales
    epilogue: Epilogue = PLAIN

    def build(self) -> Any:
        """The PrimFunc."""
        lanes, panels = self.lanes, -(-self.outputs // self.lanes)

        def write() -> Callable[[], None]:
            sizes = bound(self.leading)
            rows = product(sizes)
            x = T.arg("x", T.buffer((*sizes, index(self.length)), "float32"))
            mask = T.arg("mask", T.buffer((self.length,), "float32"))
            shape = (panels, self.decoder.words(self.length), lanes)
            words = T.arg("words", T.buffer(shape, self.decoder.dtype))
            entries = self.decoder.entries
            table = T.arg("table", T.buffer((entries,), "float32")) if entries else None
            arguments = self.scales.declare(panels, lanes)
            output = Output.declare(self.epilogue, sizes, self.outputs, lanes)

            def body() -> None:
                output.open()
                values = flat(x, product([rows, index(self.length)]))
                known = constant(rows)
                chunks: Any = (rows + (_CHUNK - 1)) // _CHUNK
                if known is not None:
                    chunks = index(-(-known // _CHUNK))
                with T.parallel(index(0), product([chunks, index(panels)])) as number:
                    unit: Any = number
                    panel, start = T.Bind(unit // chunks), T.Bind(unit % chunks * _CHUNK)
                    count = T.Bind(tirx.min(index(_CHUNK), rows - start))
                    sums = T.alloc_buffer((_CHUNK * lanes,), "float32", layout=None)
                    with T.serial(index(0), count) as i:
                        store(sums, lanes, broadcast(tirx.const(0.0, "float32"), lanes), i * lanes)
                    group = self.scales.open(arguments, panel, index(0), lanes)
                    with T.serial(index(0), index(self.length)) as place:
                        k: Any = place
                        with T.If(mask[k] != tirx.const(0.0, "float32")), T.Then():
                            value = group.value(
                                self.decoder, self._raw(words, panel, k), table, lanes
                            )
                            weight = T.Bind(value if group.scale is None else value * group.scale)
                            with T.serial(index(0), count) as step:
                                i = step
                                factor = values[(start + i) * self.length + k] * mask[k]
                                so_far = lanes_of(sums, lanes, i * lanes)
                                by = broadcast(factor, lanes)
                                new = multiply_add(by, weight, so_far, lanes)
                                store(sums, lanes, new, i * lanes)
                    with T.serial(index(0), count) as step:
                        i = step
                        output.write(start + i, panel * lanes, lanes_of(sums, lanes, i * lanes))

            return body

        return kernel("outlier_linear", write)

    def _raw(self, words: Any, panel: Any, place: Any) -> Any:
        """What the decoder takes for one column."""
        if isinstance(self.decoder, CodeDecoder):
            count = self.decoder.words(self.length)
            return T.Bind(stream_code(words, panel, place, self.decoder.bits, count, self.lanes))
        return words[panel, place, ramp(0, self.lanes)]
