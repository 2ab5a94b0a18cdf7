"""From PTX to the emulator's binary form: one flat list of operations for each kernel.

Device functions are copied into every kernel that calls them, before the caller, because lanes at
the smallest program counter run first: callers wait for those inside. Arguments, results and
`.local` variables have fixed places in a thread's local memory; hence no recursion.
"""

from __future__ import annotations

import functools

from ....errors import FewbitsError
from . import ptx
from .allocation import allocate
from .code import CONSTANT, NO_PC, TYPES, Image, Kernel, Operation
from .selection import BUILTINS, Selector, Unknown

_LOCAL_WINDOW = 2 << 60


@functools.lru_cache(maxsize=64)
def translate(text: str) -> bytes:
    """PTX to the bytes that `fb_program_load` reads.

    Instructions that the emulator does not know become an error when they are executed.

    Raises:
        FewbitsError: ``ptx-syntax``, ``ptx-unsupported``, with the line.
    """
    module = ptx.parse(text)
    image = Image(module.version, module.capability)
    held = [v for v in module.variables.values() if v.space in ("global", "const")]
    index = {variable.name: number for number, variable in enumerate(held)}
    for variable in held:
        relocations = [
            (offset, index[name], addend)
            for offset, name, addend in variable.relocations
            if name in index
        ]
        image.string(variable.name)
        image.variables.append((variable.name, variable.size, variable.init, relocations))
    for function in module.functions.values():
        if function.entry and function.defined:
            image.string(function.name)
            image.kernels.append(KernelMaker(module, image, index, function).kernel())
    return image.encode()


class KernelMaker:
    """Makes one kernel: its code, its constants, and where everything lies."""

    def __init__(
        self, module: ptx.Module, image: Image, variables: dict[str, int], entry: ptx.Function
    ) -> None:
        self.module = module
        self.image = image
        self.variables = variables
        self.entry = entry
        self.code: list[Operation] = []
        self.constants: dict[tuple[int, int, bool], int] = {}
        # Predicate 0 is false; 1 takes what nobody wants. Slots 0 and 1 likewise.
        self.predicate_count, self.slot_count = 2, 2
        self.predicates: dict[ptx.Register, int] = {}
        self.slots: dict[ptx.Register, int] = {}
        self.local = 0
        self.places: dict[ptx.Variable, int] = {}
        self.shared: dict[ptx.Variable, int] = {}
        self.starts: dict[str, int] = {}
        self.returns: dict[str, int] = {}
        self.function = entry
        self.entry_params = set(entry.params)

    # -- places

    def slot(self, register: ptx.Register) -> int:
        """The slot of a register (two slots where it has 64 bits)."""
        if register not in self.slots:
            self.slots[register] = self.slot_count
            self.slot_count += 2 if register.kind == "64" else 1
        return self.slots[register]

    def predicate(self, register: ptx.Register) -> int:
        """The number of a predicate."""
        if register not in self.predicates:
            self.predicates[register] = self.predicate_count
            self.predicate_count += 1
        return self.predicates[register]

    def temporary(self, wide: bool) -> ptx.Register:
        """A register that the text does not have."""
        return ptx.Register("temporary", "64" if wide else "32")

    def constant(self, value: int, wide: bool, variable: int = NO_PC) -> int:
        """A reference to a constant."""
        key = (value & (2**64 - 1 if wide else 0xFFFFFFFF), variable, wide)
        return CONSTANT | 2 * self.constants.setdefault(key, len(self.constants))

    def frame(self, size: int, align: int) -> int:
        """Room in local memory."""
        align = max(align, 4)
        start = -(-self.local // align) * align
        self.local = start + size
        return start

    def place(self, variable: ptx.Variable) -> int:
        """Where a variable of this thread, or a parameter, lies."""
        if variable not in self.places:
            self.places[variable] = self.frame(variable.size, variable.align)
        return self.places[variable]

    def address(self, symbol: ptx.Symbol, line: int, wide: bool = True) -> int:
        """A constant with the address of a symbol."""
        variable = symbol.variable or self.module.variables.get(symbol.name)
        if variable is None:
            raise Unknown(f"the address of {symbol.name}")
        if variable.space in ("global", "const"):
            name = variable.name
            if name not in self.variables:
                raise Unknown(f"the variable {name}")
            return self.constant(symbol.offset, wide, self.variables[name])
        if variable.space == "shared":
            known = self.module.variables.get(variable.name, variable)
            place = self.shared.get(variable, self.shared.get(known))
            if place is None:
                raise Unknown(f"the variable {variable.name}")
            return self.constant(place + symbol.offset, wide)
        if variable in self.entry_params:
            return self.constant(self.places[variable] + symbol.offset, wide)
        return self.constant(self.place(variable) + symbol.offset, wide)

    # -- emission

    def emit(self, operation: Operation) -> None:
        """Appends an operation."""
        self.code.append(operation)

    def kernel(self) -> Kernel:
        """The finished kernel."""
        params: list[tuple[int, int]] = []
        offset = 0
        for param in self.entry.params:
            offset = -(-offset // param.align) * param.align
            self.places[param] = offset
            params.append((param.size, offset))
            offset += param.size
        functions = self.closure()
        shared = self.lay_out_shared(functions)
        for function in functions:
            if function is not self.entry:
                self.returns[function.name] = self.slot(self.temporary(False))
        for function in functions:
            self.translate(function)
        directives = self.entry.directives
        required = directives.get(".reqntid", ())
        threads = 1
        for count in required or directives.get(".maxntid", (0,)):
            threads *= count
        cluster = directives.get(".reqnctapercluster", ())
        widths = {slot: 1 + (register.kind == "64") for register, slot in self.slots.items()}
        peak = allocate(self.code, widths)
        return Kernel(
            name=self.entry.name,
            slots=peak.slots,
            predicates=self.predicate_count,
            entry=self.starts[self.entry.name],
            shared=shared,
            local=self.local,
            max_threads=threads,
            block=_three(required),
            cluster=_three(cluster),
            registers=(directives.get(".maxnreg") or (max(16, min(255, peak.live)),))[0],
            params=params,
            param_bytes=offset,
            constants=[(value, variable, wide) for value, variable, wide in self.constants],
            code=self.code,
        )

    def closure(self) -> list[ptx.Function]:
        """The functions that the kernel reaches, callees first.

        Raises:
            FewbitsError: ``ptx-unsupported`` for recursion.
        """
        order: list[ptx.Function] = []
        open_: list[str] = []

        def visit(function: ptx.Function) -> None:
            if function in order:
                return
            if function.name in open_:
                raise FewbitsError(
                    "ptx-unsupported",
                    f"{function.name} calls itself",
                    where=f"PTX line {function.line}",
                )
            open_.append(function.name)
            for instruction in function.body:
                if instruction.opcode != "call":
                    continue
                for operand in instruction.operands:
                    if isinstance(operand, ptx.Symbol):
                        callee = self.module.functions.get(operand.name)
                        if callee is not None and callee.defined:
                            visit(callee)
            open_.pop()
            order.append(function)

        visit(self.entry)
        return order

    def lay_out_shared(self, functions: list[ptx.Function]) -> int:
        """Places for the shared variables that are used; static bytes."""
        used: dict[ptx.Variable, None] = {}
        for function in functions:
            for instruction in function.body:
                for operand in instruction.operands:
                    for symbol in _symbols(operand):
                        variable = symbol.variable or self.module.variables.get(symbol.name)
                        if variable is not None and variable.space == "shared":
                            used[variable] = None
        size = 0
        dynamic = [v for v in used if v.extern]
        for variable in used:
            if variable.extern:
                continue
            size = -(-size // max(1, variable.align)) * max(1, variable.align)
            self.shared[variable] = size
            size += variable.size
        if dynamic:
            align = max(16, *(variable.align for variable in dynamic))
            size = -(-size // align) * align
            for variable in dynamic:
                self.shared[variable] = size
        return size

    def translate(self, function: ptx.Function) -> None:
        """Appends a function's code."""
        self.function = function
        self.starts[function.name] = len(self.code)
        places: list[int] = []
        fixes: list[tuple[Operation, int, int]] = []
        for instruction in function.body:
            places.append(len(self.code))
            guard = NO_PC
            if instruction.guard is not None:
                guard = self.predicate(instruction.guard) * 2 + instruction.negated
            selector = Selector(self, instruction)
            first = len(self.code)
            try:
                selector.select()
            except (Unknown, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
                del self.code[first:]
                selector.jumps.clear()
                reason = f" ({error})" if isinstance(error, Unknown) and str(error) else ""
                text = self.image.string(instruction.text + reason)
                self.emit(Operation("unsupported", [text]))
            for operation in self.code[first:]:
                operation.line = instruction.line
                if operation.guard == NO_PC:
                    operation.guard = guard
            for operation, place, target in selector.jumps:
                fixes.append((operation, place, target))
        places.append(len(self.code))
        if function is self.entry:
            self.emit(Operation("exit", []))
        else:
            self.emit(Operation("ret", [self.returns[function.name]]))
        for operation, place, target in fixes:
            operation.operands[place] = places[target]

    def call(self, name: str, arguments: list[ptx.Variable],
             results: list[ptx.Variable]) -> None:  # fmt: skip
        """A call of a function of the module, or of CUDA's run time."""
        if name in BUILTINS and name not in self.starts:
            area = self.frame(40, 8)
            for position, argument in enumerate(arguments[:3]):
                self.copy(area + 8 * position, self.place(argument), min(8, argument.size))
            back = self.place(results[0]) if results else area
            self.emit(Operation("call_builtin", [BUILTINS[name], area, back]))
            return
        callee = self.module.functions.get(name)
        if callee is None or name not in self.starts:
            raise Unknown(f"the function {name}")
        if len(arguments) != len(callee.params) or len(results) != len(callee.results):
            raise Unknown(f"other arguments than {name} has")
        for given, taken in zip(arguments, callee.params, strict=True):
            self.copy(self.place(taken), self.place(given), min(taken.size, given.size))
        self.emit(Operation("call", [self.starts[name], self.returns[name]]))
        for given, taken in zip(results, callee.results, strict=True):
            self.copy(self.place(given), self.place(taken), min(taken.size, given.size))

    def copy(self, to: int, source: int, size: int) -> None:
        """Moves bytes inside local memory."""
        self.emit(Operation("copy_param", [to, source, size], TYPES["u32"]))


def _three(values: tuple[int, ...]) -> tuple[int, int, int]:
    if not values:
        return (0, 0, 0)
    padded = (*values, 1, 1)
    return (padded[0], padded[1], padded[2])


def _symbols(operand: ptx.Operand) -> list[ptx.Symbol]:
    if isinstance(operand, ptx.Symbol):
        return [operand]
    if isinstance(operand, ptx.Memory):
        return [s for part in (operand.base, *operand.more) for s in _symbols(part)]
    if isinstance(operand, (ptx.Vector, ptx.Group)):
        return [s for part in operand.items for s in _symbols(part)]
    return []
