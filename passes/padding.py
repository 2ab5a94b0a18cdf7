"""Padding in calibration data: tokens that no other token may look at are nobody's tokens.

Batches of sentences are padded to one length, often to twice what they hold, and an attention mask
hides the rest. What layers compute at padded places reaches no output, so moments of their inputs
are better off without it. The mask is found where it acts: as what is added to scores in front of
a softmax, without being computed from them.
"""

from __future__ import annotations

from typing import Any

import torch
from tvm import ir, relax

from ..ops.evaluate import Environment, Evaluator
from .quantize.masks import MASKED
from .rewrite import Rewriter, operator_of, variables

#: What a mask is not computed with.
_LAYERS = ("relax.matmul", "relax.nn.conv1d", "relax.nn.conv2d")


class Padding:
    """Finds the padded places of calibration samples, where a module has an attention mask."""

    def __init__(self, module: ir.IRModule) -> None:
        rewriter = Rewriter(module)
        self._mask: relax.Var | None = None
        self._steps: set[relax.Var] = set()
        parameters = set(rewriter.parameters)
        for _, value in rewriter.bindings:
            for operand in _added_before_softmax(rewriter, value):
                before = _ancestors(rewriter, operand)
                if before is not None and before & parameters:
                    self._mask, self._steps = operand, before
                    return

    def of(self, evaluator: Evaluator, start: Environment) -> torch.Tensor | None:
        """Bool ``[samples, tokens]``: which tokens are no padding; None without a mask.

        Args:
            evaluator: of the module.
            start: with the inputs in it; left as it is.
        """
        if self._mask is None:
            return None
        local = Environment(
            dict(start.values), start.sizes, start.mapped, start.count, dict(start.shared)
        )
        for step in evaluator.steps:
            if step.var in self._steps:
                evaluator.run_step(step, local)
        mask = local[self._mask]
        if self._mask not in local.values or len(mask) != start.count:
            return None
        # A token is padding where no place looks at it.
        hidden = mask.reshape(len(mask), -1, mask.shape[-1]) <= MASKED
        return ~hidden.all(dim=1)


def without_padding(value: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """The vectors ``[..., K]`` of tokens that are kept; all, where they are not one per token."""
    if kept is None or value.numel() != kept.numel() * value.shape[-1]:
        return value
    return value.reshape(-1, value.shape[-1])[kept.reshape(-1).to(value.device)]


def _added_before_softmax(rewriter: Rewriter, value: relax.Expr) -> list[relax.Var]:
    if operator_of(value) != "relax.nn.softmax" or not isinstance(value, relax.Call):
        return []
    source: Any = rewriter.values.get(value.args[0])
    if operator_of(source) != "relax.add":
        return []
    return [operand for operand in source.args if isinstance(operand, relax.Var)]


def _ancestors(rewriter: Rewriter, var: relax.Var) -> set[relax.Var] | None:
    """The variable and all that it is computed from; None where a layer is among it."""
    found: set[relax.Var] = set()
    waiting = [var]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        value = rewriter.values.get(one)
        if value is None:
            continue
        if operator_of(value) in _LAYERS:
            return None
        waiting += variables(value)
    return found
