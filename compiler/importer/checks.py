"""What is checked of a model's graph before anything of it is converted.

A model is input from outside. Everything the node loop relies on is established here: versions,
operators, one definition per name, every value defined before it is used.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

import onnx

from ...errors import FewbitsError

#: Older operator sets have other meanings for common operators.
OLDEST_OPSET = 11

_RECURRENT = "recurrent operators come later"
_CONTROL = "operators with subgraphs (control flow) are not supported"

#: Why some operators are missing; the others simply are not there yet.
REASONS: Mapping[str, str] = {
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    "If": _CONTROL,
    "Loop": _CONTROL,
    "Scan": _CONTROL,
    "SequenceMap": _CONTROL,
}


def check_versions(model: onnx.ModelProto) -> dict[str, int]:
    """The operator set versions by domain (``""`` for the default one).

    A model of an older operator set than `OLDEST_OPSET` is taken for one of that, if all of its
    operators mean the same there.

    Raises:
        FewbitsError: ``unknown-opset``, ``opset-too-old``, ``opset-too-new``.
    """
    opsets = {
        "" if entry.domain == "ai.onnx" else entry.domain: entry.version
        for entry in model.opset_import
    }
    newest = onnx.defs.onnx_opset_version()
    if opsets.get("", 0) < 1:
        raise FewbitsError(
            "unknown-opset",
            "the model does not say which operator set it uses",
            hint="opset_import must name the default domain",
        )
    if opsets[""] > newest:
        raise FewbitsError(
            "opset-too-new",
            f"the model uses opset {opsets['']}; the installed onnx knows up to {newest}",
            hint="pip install --upgrade onnx, or export with an older opset",
        )
    if opsets[""] < OLDEST_OPSET:
        changed = {n.op_type for n in model.graph.node if _changed(n, opsets[""])}
        if changed:
            raise FewbitsError(
                "opset-too-old",
                f"the model uses opset {opsets['']}; {OLDEST_OPSET} is the oldest supported, and "
                f"there {', '.join(sorted(changed))} changed",
                hint="convert it: onnx.version_converter.convert_version(model, 17)",
            )
        opsets[""] = OLDEST_OPSET
    return opsets


def _changed(node: onnx.NodeProto, opset: int) -> bool:
    """Whether the operator means something else, or is not known, at `OLDEST_OPSET`."""
    if node.domain not in ("", "ai.onnx"):
        return False
    try:
        return onnx.defs.get_schema(node.op_type, OLDEST_OPSET).since_version > opset
    except onnx.defs.SchemaError:
        return True


def prepare(model: onnx.ModelProto) -> None:
    """Check names and order the nodes, in place; nodes that nothing needs are dropped.

    Raises:
        FewbitsError: ``no-outputs``, ``duplicate-value``, ``undefined-value``, ``cyclic-graph``,
            ``unsupported-form`` for sparse weights.
    """
    graph = model.graph
    if not graph.output:
        raise FewbitsError("no-outputs", "the model has no outputs")
    if graph.sparse_initializer:
        raise FewbitsError("unsupported-form", "sparse initializers are not supported")
    given = _given(graph)
    makers = _makers(graph, given)
    for output in graph.output:
        if output.name not in makers and output.name not in given:
            raise FewbitsError("undefined-value", f"no node computes the output {output.name!r}")
    order = _sorted(graph, makers, _needed(graph, makers, given))
    nodes = []
    for index in order:
        node = onnx.NodeProto()
        node.CopyFrom(graph.node[index])
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _given(graph: onnx.GraphProto) -> set[str]:
    """Names that are there before any node runs."""
    for kind, names in (
        ("inputs", [value.name for value in graph.input]),
        ("initializers", [tensor.name for tensor in graph.initializer]),
        ("outputs", [value.name for value in graph.output]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                raise FewbitsError("duplicate-value", f"{count} {kind} are called {name!r}")
            if not name:
                raise FewbitsError("undefined-value", f"one of the {kind} has no name")
    return {v.name for v in graph.input} | {t.name for t in graph.initializer}


def _makers(graph: onnx.GraphProto, given: Collection[str]) -> dict[str, int]:
    """The index of the node that computes each value."""
    makers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in makers or name in given:
                raise FewbitsError(
                    "duplicate-value", f"{name!r} is computed twice", where=describe(node)
                )
            makers[name] = index
    return makers


def _needed(graph: onnx.GraphProto, makers: Mapping[str, int], given: Collection[str]) -> set[int]:
    """The nodes that the outputs depend on."""
    needed: set[int] = set()
    open_ = [makers[output.name] for output in graph.output if output.name in makers]
    while open_:
        index = open_.pop()
        if index in needed:
            continue
        needed.add(index)
        node = graph.node[index]
        for name in filter(None, node.input):
            if name in makers:
                open_.append(makers[name])
            elif name not in given:
                raise FewbitsError(
                    "undefined-value", f"nothing computes its input {name!r}", where=describe(node)
                )
    return needed


def _sorted(
    graph: onnx.GraphProto, makers: Mapping[str, int], needed: Collection[int]
) -> list[int]:
    """`needed`, each node after those it depends on, otherwise in the file's order."""
    waiting = {
        index: {makers[name] for name in graph.node[index].input if name in makers}
        for index in needed
    }
    users: defaultdict[int, list[int]] = defaultdict(list)
    for index, sources in waiting.items():
        for source in sources:
            users[source].append(index)
    ready = [index for index, sources in waiting.items() if not sources]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            waiting[user].discard(index)
            if not waiting[user]:
                heapq.heappush(ready, user)
    if len(order) < len(needed):
        stuck = graph.node[min(set(needed) - set(order))]
        raise FewbitsError(
            "cyclic-graph", "nodes need each other's results in a circle", where=describe(stuck)
        )
    return order


def describe(node: onnx.NodeProto) -> str:
    """A node as errors name it."""
    name = node.name or next(iter(filter(None, node.output)), "")
    return f"node {name!r} ({node.op_type})"


def check_operators(
    nodes: Iterable[onnx.NodeProto], opsets: Mapping[str, int], supported: Collection[str]
) -> None:
    """Refuse all operators that are not `supported` in one error.

    Raises:
        FewbitsError: ``unsupported-operator``; ``unknown-domain`` for a node whose domain the
            model does not import.
    """
    missing: defaultdict[str, list[str]] = defaultdict(list)
    for node in nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain not in opsets:
            raise FewbitsError(
                "unknown-domain",
                f"the model does not import the operator set {domain!r}",
                where=describe(node),
            )
        key = f"{domain}:{node.op_type}" if domain else node.op_type
        if key not in supported:
            missing[key].append(node.name or next(iter(filter(None, node.output)), ""))
    if not missing:
        return
    lines = []
    for key, names in sorted(missing.items()):
        shown = ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        reason = REASONS.get(key)
        lines.append(f"{key} ({len(names)}: {shown})" + (f" - {reason}" if reason else ""))
    raise FewbitsError(
        "unsupported-operator",
        f"{len(missing)} unsupported operator{'s' * (len(missing) > 1)}: " + "; ".join(lines),
        where=f"{sum(map(len, missing.values()))} nodes",
        hint="export the model without them, or for inference only; "
        "docs list the supported operators",
    )
