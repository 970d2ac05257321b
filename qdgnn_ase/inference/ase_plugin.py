"""Entry point ``ase.plugins``: `ase info --plugins` lists the calculator.

ASE 3.29 keeps its plugin classes in a private module, so an ASE without it gets an empty list.
"""

from __future__ import annotations

try:
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:
    __ase_plugins__ = set()
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            name="qdgnn",
            citation="the qdgnn_ase developers, 2026",
            implementation="qdgnn_ase.inference.calculator.QDGNNCalculator",
        )
    }
