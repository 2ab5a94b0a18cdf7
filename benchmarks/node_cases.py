"""ONNX's own node tests, through the importer to C on this machine.

    python -m benchmarks.node_cases                          # the table
    python -m benchmarks.node_cases --docs docs/operators.md # and the page about it
    python -m benchmarks.node_cases --target cpu             # the same for CPU libraries
    python -m benchmarks.node_cases --target cpu --symbolic  # every size of the input open
    python -m benchmarks.node_cases --target cuda-sm80       # in the emulated GPU

Every case whose operators the importer claims: all inputs but the first are constants, as weights
are; the module is evaluated by the oracle, canonicalized, lowered for the target ``c``, compiled
with sanitizers together with many others, run, and both results are compared with ONNX's.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import tempfile
import textwrap
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.importer.convert import CLAIMED_OPERATORS
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.canonicalize import Canonicalize
from fewbits.targets.mcu.lower import lower
from fewbits.targets.mcu.program import Program
from fewbits.targets.mcu.target import get_target

from . import batch, isolated

BATCH = 120
#: Cases in one library for GPUs.
LIBRARY = 24
#: Relative and absolute tolerance where floats are stored in float16, whatever the case allows.
HALF = (1e-2, 1e-2)
#: Architectures by target.
CUDA = {"cuda-sm80": "sm_80", "cuda-sm89": "sm_89", "cuda-sm90a": "sm_90a"}
Verdict = Literal["passed", "refused", "failed"]
VERDICTS: tuple[Verdict, ...] = ("passed", "refused", "failed")
_QUOTED = re.compile(r"'[^']*'|\[\d[\d, ]*\]")


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one case.

    Attributes:
        name: ONNX's name of the case.
        operator: the operator it is about, e.g. ``"Conv"``.
        verdict: passed, refused (with an error that says why), or failed.
        reason: why, unless it passed.
    """

    name: str
    operator: str
    verdict: Verdict
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class _Prepared:
    name: str
    operator: str
    program: Program
    inputs: dict[str, np.ndarray]
    expected: list[np.ndarray]
    tolerance: tuple[float, float]


def claimed_cases() -> list[Any]:
    """ONNX's cases of which every operator is one that the importer claims."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return [case for case in cases if case.model is not None and _claimed(case.model)]


def _claimed(model: onnx.ModelProto) -> bool:
    return all(
        (f"{node.domain}:{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type)
        in CLAIMED_OPERATORS
        for node in model.graph.node
    )


def operator_of(case: Any) -> str:
    """The operator that a case is about: of expanded functions the name tells, else the node."""
    known = {name.lower(): name for name in CLAIMED_OPERATORS}
    if len(case.model.graph.node) == 1:
        return str(case.model.graph.node[0].op_type)
    words = case.name.removeprefix("test_").split("_")
    for count in range(len(words), 0, -1):
        name = "".join(words[:count])
        if name in known:
            return known[name]
    return "others, expanded"


def sweep(cases: Sequence[Any]) -> Iterator[Result]:
    """Run the cases; results come in the order of the cases, in batches."""
    for start in range(0, len(cases), BATCH):
        prepared: dict[str, _Prepared] = {}
        results: dict[str, Result] = {}
        chunk = cases[start : start + BATCH]
        for case in chunk:
            made = prepare(case)
            if isinstance(made, Result):
                results[case.name] = made
            else:
                prepared[case.name] = made
        for made in _run(list(prepared.values())):
            results[made.name] = made
        yield from (results[case.name] for case in chunk)


def prepare(case: Any) -> _Prepared | Result:
    """Import, evaluate and lower one case; the result at once if it does not come that far."""
    operator = operator_of(case)

    def result(verdict: Verdict, reason: object) -> Result:
        return _result(case, verdict, reason)

    data = _data(case)
    if isinstance(data, Result):
        return data
    given, expected = data
    names = list(given)
    constants = {name: given[name] for name in names[1:]}
    shapes = {name: given[name].shape for name in names[:1]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            imported = import_onnx(case.model, shapes=shapes, constants=constants)
        module = Canonicalize().apply(imported.module, PassContext(seed=0))
        program = lower(module, get_target("c"), "case", {})
        values = {name: given[name] for name in names[:1]}
        oracle = Evaluator(imported.module)(
            {name: torch.from_numpy(np.array(array)) for name, array in values.items()}
        )
    except FewbitsError as error:
        return result("refused", f"[{error.code}] {error.message}")
    except Exception as error:
        return result("failed", f"{type(error).__name__}: {error}")
    tolerance = (float(case.rtol), float(case.atol))
    for name, ours, theirs in zip(oracle, oracle.values(), expected, strict=True):
        problem = difference(ours.numpy(), theirs, tolerance)
        if problem:
            return result("failed", f"oracle: {name}: {problem}")
    return _Prepared(case.name, operator, program, values, expected, tolerance)


def sweep_cpu(cases: Sequence[Any], *, symbolic: bool = False) -> Iterator[Result]:
    """The same on this CPU, one case after the other, with `symbolic` for any size of the input."""

    def crashed(case: Any, reason: str) -> Result:
        return _result(case, "failed", reason)

    yield from isolated.each(lambda case: run_cpu(case, symbolic=symbolic), cases, crashed)


def run_cpu(case: Any, *, symbolic: bool = False) -> Result:
    """One case on this CPU."""
    from .node_cases_cpu import outputs_of

    data = _data(case)
    if isinstance(data, Result):
        return data
    given, expected = data
    try:
        oracle, outputs = outputs_of(case.model, given, symbolic=symbolic)
    except FewbitsError as error:
        return _result(case, "refused", f"[{error.code}] {error.message}")
    except Exception as error:
        return _result(case, "failed", f"{type(error).__name__}: {error}")
    tolerance = (float(case.rtol), float(case.atol))
    for who, found in (("oracle", oracle), ("library", outputs)):
        for ours, theirs in zip(found, expected, strict=True):
            problem = difference(ours, theirs, tolerance)
            if problem:
                return _result(case, "failed", f"{who}: {problem}")
    return _result(case, "passed", "")


def sweep_cuda(
    cases: Sequence[Any], architecture: str, dtype: str = "float32", *, symbolic: bool = False
) -> Iterator[Result]:
    """The same in the emulated GPU, several cases in one library.

    Args:
        cases: ONNX's.
        architecture: e.g. ``"sm_80"``.
        dtype: what floats are stored in. float16 is compared with `HALF`'s tolerance.
        symbolic: leave every size of the input open.
    """
    run = functools.partial(run_cuda, architecture=architecture, dtype=dtype, symbolic=symbolic)
    groups = [cases[start : start + LIBRARY] for start in range(0, len(cases), LIBRARY)]
    for group, results in zip(
        groups, isolated.each(run, groups, lambda group, reason: reason), strict=True
    ):
        if not isinstance(results, str):
            yield from results
            continue
        for case, found in zip(
            group,
            isolated.each(lambda one: run([one]), group, lambda one, reason: reason),
            strict=True,
        ):
            yield _result(case, "failed", found) if isinstance(found, str) else found[0]


def run_cuda(
    cases: Sequence[Any], architecture: str, dtype: str = "float32", *, symbolic: bool = False
) -> list[Result]:
    """Some cases in the emulated GPU, from one library."""
    from .node_cases_cuda import Lowered, lowered, outputs_of

    ready: list[tuple[Any, list[np.ndarray], Lowered]] = []
    results: dict[str, Result] = {}
    for case in cases:
        data = _data(case)
        if isinstance(data, Result):
            results[case.name] = data
            continue
        given, expected = data
        try:
            made = lowered(case.model, given, architecture, dtype, symbolic=symbolic)
            ready.append((case, expected, made))
        except FewbitsError as error:
            results[case.name] = _result(case, "refused", f"[{error.code}] {error.message}")
        except Exception as error:
            results[case.name] = _result(case, "failed", f"{type(error).__name__}: {error}")
    outputs = outputs_of([made for _, _, made in ready], architecture) if ready else []
    for (case, expected, made), found in zip(ready, outputs, strict=True):
        if isinstance(found, FewbitsError):
            results[case.name] = _result(case, "failed", found.message)
            continue
        tolerance = (float(case.rtol), float(case.atol))
        problems = _problems("oracle", made.oracle, expected, tolerance)
        if dtype != "float32":
            tolerance = max(tolerance[0], HALF[0]), max(tolerance[1], HALF[1])
        problems += _problems("library", found, expected, tolerance)
        verdict: Verdict = "failed" if problems else "passed"
        results[case.name] = _result(case, verdict, "; ".join(problems))
    return [results[case.name] for case in cases]


def _problems(
    who: str,
    found: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    tolerance: tuple[float, float],
) -> list[str]:
    compared = (difference(*pair, tolerance) for pair in zip(found, expected, strict=True))
    return [f"{who}: {problem}" for problem in compared if problem]


def _result(case: Any, verdict: Verdict, reason: object) -> Result:
    text = " ".join(str(reason).split())
    return Result(case.name, operator_of(case), verdict, text[:300])


def _data(case: Any) -> tuple[dict[str, np.ndarray], list[np.ndarray]] | Result:
    """Inputs by name, and what ONNX expects; refused at once where they are no arrays."""
    inputs, expected = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    if any(isinstance(value, list) or value is None for value in (*inputs, *expected)):
        text = "[sequence] sequences and optional values are not supported"
        return _result(case, "refused", text)
    given = dict(zip(names, map(_array, inputs), strict=True))
    return given, [_array(value) for value in expected]


def _array(value: Any) -> np.ndarray:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value)


def _run(prepared: Sequence[_Prepared]) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        cases = [batch.Case(one.name, one.program, one.inputs) for one in prepared]
        outputs = batch.run(cases, Path(folder)) if cases else {}
    for one in prepared:
        found = outputs.get(one.name, "did not run")
        if isinstance(found, str):
            yield Result(one.name, one.operator, "failed", found[:300])
            continue
        problems = [
            problem
            for ours, theirs in zip(found, one.expected, strict=True)
            if (problem := difference(ours, theirs, one.tolerance))
        ]
        verdict: Verdict = "failed" if problems else "passed"
        yield Result(one.name, one.operator, verdict, "; ".join(problems))


def difference(ours: np.ndarray, theirs: np.ndarray, tolerance: tuple[float, float]) -> str | None:
    """How two arrays differ beyond (relative, absolute) tolerance, None if they do not.

    ONNX's tolerance for float16 is one unit in the last place; as it is right to round twice or
    once, two are allowed.
    """
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, not {theirs.shape}"
    if ours.dtype != theirs.dtype:
        return f"dtype {ours.dtype}, not {theirs.dtype}"
    relative, absolute = tolerance
    if ours.dtype == np.float16:
        relative = max(relative, 2 * float(np.finfo(np.float16).eps))
    if ours.dtype.kind not in "fc":
        if np.array_equal(ours, theirs):
            return None
        return f"{np.count_nonzero(ours != theirs)} of {ours.size} elements differ"
    if np.allclose(ours, theirs, rtol=relative, atol=absolute, equal_nan=True):
        return None
    with np.errstate(invalid="ignore"):
        return f"differs by up to {np.nanmax(np.abs(ours - theirs)):.3g}"


def table(results: Sequence[Result]) -> str:
    """Cases by operator as Markdown, with the reasons of what does not pass."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for one in results:
        counts[one.operator][one.verdict] += 1
        if one.verdict != "passed":
            reasons[one.operator][_QUOTED.sub("(...)", one.reason)] += 1
    lines = ["| operator | passed | refused | failed | why not |", "|---|---|---|---|---|"]
    for operator in sorted(counts):
        number = counts[operator]
        why = "; ".join(
            f"{text.replace('|', '/')}" + (f" ({times})" if times > 1 else "")
            for text, times in reasons[operator].most_common(4)
        )
        verdicts = " | ".join(str(number[verdict]) for verdict in VERDICTS)
        lines.append(f"| {operator} | {verdicts} | {why} |")
    total = Counter(one.verdict for one in results)
    lines.append("| **all** | " + " | ".join(f"**{total[v]}**" for v in VERDICTS) + " | |")
    return "\n".join(lines)


_ABOUT = {
    "c": """Float cases are compiled as float code; the other microcontroller targets compile the
        same C.""",
    "cpu": """Other CPU targets differ in instructions alone. What microcontrollers accept is in
        [operators](operators.md).""",
    "cuda-sm80": """The library runs in the emulated GPU, floats are stored in float32 (`--float
        float32`), and ONNX's tolerances hold. What microcontrollers and CPUs accept is in
        [operators](operators.md) and [operators on CPUs](operators-cpu.md).""",
}

#: Title and command of a target's page.
_PAGES = {
    "c": ("Operators", "--docs docs/operators.md"),
    "cpu": ("Operators on CPUs", "--target cpu --docs docs/operators-cpu.md"),
    "cuda-sm80": ("Operators on GPUs", "--target cuda-sm80 --docs docs/operators-cuda.md"),
}


def page(results: Sequence[Result], target: str = "c") -> str:
    """The documentation page."""
    total = Counter(one.verdict for one in results)
    untested = sorted(CLAIMED_OPERATORS - {one.operator for one in results})
    summary = f"""What the importer accepts, and what comes of ONNX's own tests of it (onnx
        {onnx.__version__}, `onnx.backend.test.case.node`) on the target `{target}`:
        {total["passed"]} of {len(results)} cases pass, {total["refused"]} are refused with an
        error that says why, and {total["failed"]} fail. All inputs but the first are constants.
        {_ABOUT[target]} Cases that write an operator out in simpler ones (`..._expanded`) count for
        that operator."""
    filled = textwrap.fill(" ".join(summary.split()), 100, break_on_hyphens=False)
    title, command = _PAGES[target]
    return f"""# {title}

{filled}

This page is written by `python -m benchmarks.node_cases {command}`.

{table(results)}

Accepted as well, without a case in ONNX's tests: {", ".join(untested)}.
"""


def main() -> None:
    """Print the table, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, help="write the documentation page here")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="list what does not pass")
    parser.add_argument("--target", choices=["c", "cpu", *CUDA], default="c")
    parser.add_argument("--symbolic", action="store_true", help="leave all sizes open")
    parser.add_argument(
        "--float", dest="dtype", choices=["float32", "float16", "bfloat16"], default="float32",
        help="on GPUs: what floats are stored in",
    )  # fmt: skip
    parser.add_argument("--slice", default="", help="FROM:TO:STEP of the cases, as in Python")
    parser.add_argument("--sample", type=int, help="about so many cases, evenly spread")
    arguments = parser.parse_args()
    target, symbolic = arguments.target, arguments.symbolic
    if symbolic and target == "c":
        parser.error("--symbolic is for CPUs and GPUs")
    if arguments.docs and target not in _PAGES:
        parser.error(f"--docs is for {', '.join(_PAGES)}")
    if arguments.docs and (symbolic or arguments.dtype != "float32"):
        parser.error("--docs is for known sizes and float32")
    cases = [case for case in claimed_cases() if arguments.only in case.name]
    cases = cases[slice(*(int(n) if n else None for n in arguments.slice.split(":")))]
    if arguments.sample:
        cases = cases[:: max(1, len(cases) // arguments.sample)]
    if target == "c":
        found = sweep(cases)
    elif target == "cpu":
        found = sweep_cpu(cases, symbolic=symbolic)
    else:
        found = sweep_cuda(cases, CUDA[target], arguments.dtype, symbolic=symbolic)
    results = []
    for one in found:
        results.append(one)
        if arguments.verbose and one.verdict != "passed":
            print(f"{one.verdict} {one.name} ({one.operator}): {one.reason}", flush=True)
    if arguments.docs:
        arguments.docs.write_text(page(results, target), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
