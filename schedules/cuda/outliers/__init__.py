"""LLM.int8 with outliers found at run time (spec 2): a product over the columns of a list."""

from .columns import list_columns
from .product import OutlierProduct, outlier_caller, outlier_product

__all__ = ["OutlierProduct", "list_columns", "outlier_caller", "outlier_product"]
