"""Smoothing migration (spec 4) in its parts: where, by how much, and the rewriting."""
