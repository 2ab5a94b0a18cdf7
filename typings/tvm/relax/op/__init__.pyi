# TVM objects get their attributes from C++ at run time, which its own annotations do not say.
from typing import Any

def __getattr__(name: str) -> Any: ...
