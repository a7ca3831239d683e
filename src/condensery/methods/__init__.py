"""Condensation methods: one paper, one file."""

from condensery.methods.dc import DC
from condensery.methods.dm import DM
from condensery.methods.dsa import DSA

__all__ = ["DC", "DM", "DSA"]
