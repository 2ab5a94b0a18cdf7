"""Everything that is no product of matrices gets its threads here."""

from .function import schedule_function
from .module import schedule_module
from .views import fuse_views

__all__ = ["fuse_views", "schedule_function", "schedule_module"]
