"""Sweeps: one model or a family under many compressions, measured the same way.

The road: a plan (`plan`) becomes cells (`cells`), an executor (`executors`, `ray_executor`) runs
each (`work`) and a folder keeps what came out (`store`), from which tables, fronts, plots and the
page are made (`tables`, `fronts`, `plots`, `page`). `run` is the road in one file.
"""
