"""Phonons with any ASE calculator."""

from __future__ import annotations

from qdgnn_phonons.mlp import CalculatorMLP

__all__ = ["CalculatorMLP"]
