"""How a product by look-ups is divided: what there is to choose from."""

from __future__ import annotations

import dataclasses

from ..architecture import Architecture
from ..problem import Linear
from ..weight_only.exchange import sums_bytes
from .binary_coded import TILE, WORD, BinaryCoded

LANES = 32
#: Entries of a table: the signs of eight inputs.
ENTRIES, OCTET = 256, 8
#: Bytes of the tables that an entry's number, as a byte of an address, tells apart.
REGION = ENTRIES * 256
#: Inputs that a warp multiplies at a time: four words, one for each lane of a quad.
CHUNK = 4 * WORD
#: Registers of sums that a lane has.
SUMS = 32


@dataclasses.dataclass(frozen=True)
class LutSizes:
    """A block's share, and its tables.

    Each of 32 lanes has tables of its own, in a bank of its own, so look-ups never wait for each
    other.

    Attributes:
        rows: of x that a block takes: 1, 2 or 4.
        tables: of a lane and row, of eight inputs each: 1, 2 or 4.
        tiles: of 32 outputs that a block takes.
        warps: of a block: 8 or 16.
        split: blocks of a cluster that share the inputs; added in a fixed order.
    """

    rows: int
    tables: int
    tiles: int
    warps: int
    split: int = 1

    @property
    def threads(self) -> int:
        """Of a block."""
        return LANES * self.warps

    @property
    def outputs(self) -> int:
        """Of a block."""
        return TILE * self.tiles

    @property
    def words(self) -> int:
        """Of inputs that a block has tables for at a time."""
        return LANES * OCTET * self.tables // WORD

    @property
    def table_bytes(self) -> int:
        """Of all tables: two numbers of each lane make 256 bytes an entry."""
        return self.rows * self.tables // 2 * REGION

    @property
    def sum_bytes(self) -> int:
        """Of the results so far."""
        return 4 * self.rows * self.outputs

    @property
    def shared_bytes(self) -> int:
        """Of a block."""
        return self.table_bytes + self.sum_bytes

    @property
    def places(self) -> int:
        """Vectors of four outputs that a warp takes before it adds over its lanes."""
        return SUMS // (4 * self.rows)


def fits(problem: Linear, architecture: Architecture, sizes: LutSizes) -> bool:
    """Whether a block has the memory, a table the same scales for all its inputs, and work."""
    layout = problem.weight
    assert isinstance(layout, BinaryCoded)
    words = -(-problem.inputs // WORD)
    tiles = -(-problem.outputs // TILE)
    slices = -(-words // sizes.words)
    return (
        sizes.rows * sizes.tables % 2 == 0
        and sizes.shared_bytes <= architecture.shared_memory
        and (layout.group is None or layout.group >= OCTET * sizes.tables)
        and (sizes.split == 1 or (architecture.has_wgmma and sizes.split <= slices))
        and (sizes.tiles == 1 or sizes.tiles < 2 * tiles)
    )


@dataclasses.dataclass(frozen=True)
class MatrixSizes:
    """How many rows are divided.

    Attributes:
        tokens: rows of x that a block takes, a multiple of 8.
        across: warps that have outputs of their own, 32 each.
        along: warps that share outputs and take every so many-th chunk of the inputs.
    """

    tokens: int
    across: int
    along: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return LANES * self.across * self.along

    @property
    def outputs(self) -> int:
        """Of a block."""
        return TILE * self.across

    @property
    def step_bytes(self) -> int:
        """Of the activations of a step."""
        return 2 * CHUNK * self.tokens * self.along

    @property
    def shared_bytes(self) -> int:
        """Of a block: two steps' activations, later the sums of all warps."""
        return max(2 * self.step_bytes, sums_bytes(self.along, self.tokens, self.outputs))


def matrix_fits(problem: Linear, architecture: Architecture, sizes: MatrixSizes) -> bool:
    """Whether a block has the memory, and work for its warps."""
    chunks = -(-problem.inputs // CHUNK)
    tiles = -(-problem.outputs // TILE)
    return (
        sizes.shared_bytes <= architecture.shared_memory
        and 2 <= sizes.across * sizes.along <= 8
        and (sizes.along == 1 or sizes.along < 2 * chunks)
        and (sizes.across <= 2 or sizes.across < 2 * tiles)
    )
