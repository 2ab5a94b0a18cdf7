"""Which instruction set extensions this CPU has: a library that needs others must not be called.

A missing extension shows as SIGILL somewhere in the middle of a run, so the question is asked
before anything is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tvm


@functools.cache
def _host() -> dict[str, bool]:
    """Every extension that LLVM can tell on this machine, and whether it is there."""
    from tvm import get_global_func

    found = get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    return {str(name): bool(present) for name, present in found.items()}


@functools.cache
def host_cpu() -> tuple[str, tuple[str, ...]]:
    """LLVM's name of this CPU, and the extensions by which it differs from others of that name.

    A hypervisor may hide some of what CPUs of this name have.
    """
    import tvm
    from tvm.target import codegen

    name = str(codegen.llvm_get_system_cpu())
    usual = set(map(str, codegen.llvm_get_cpu_features(tvm.target.Target(_options(name)))))
    hidden = sorted(f for f, present in _host().items() if not present and f in usual)
    return name, tuple(f"-{feature}" for feature in hidden)


def _options(mcpu: str) -> dict[str, str]:
    return {"kind": "llvm", "mcpu": mcpu}


def instructions_of(target: tvm.target.Target) -> list[str]:
    """The extensions that LLVM may use for a target; what only tunes its choices is left out.

    A CPU's own name says what such CPUs have, so for other instruction sets than this machine's
    the list holds tuning as well: it is shown, not checked.
    """
    from tvm.target import codegen

    from .target import this_machine

    used = set(map(str, codegen.llvm_get_cpu_features(target)))
    triple = str(target.attrs.get("mtriple", ""))
    if not triple or triple.startswith(this_machine()):
        used &= _host().keys()
    return sorted(used)


def missing_here(machine: str, features: Iterable[str]) -> list[str]:
    """What a library needs and this CPU lacks; the machine itself where it is another one."""
    from .target import this_machine

    if machine != this_machine():
        return [machine]
    host = _host()
    return [feature for feature in features if not host.get(feature, True)]
