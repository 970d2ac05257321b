"""The table of properties: names, units, and what it refuses."""

from __future__ import annotations

import pytest

from qdgnn_ase.properties import LEARNED, PROPERTIES, learned_property


def test_names_are_keys_and_have_units() -> None:
    assert all(name == row.name and row.unit for name, row in PROPERTIES.items())


def test_derived_properties_cannot_be_learned() -> None:
    assert "young_modulus" not in LEARNED
    with pytest.raises(ValueError, match=r"target must be one of .*, got 'young_modulus'"):
        learned_property("young_modulus")


@pytest.mark.parametrize("name", [n for n, row in PROPERTIES.items() if row.scale == "log10"])
def test_logarithms_are_taken_of_positive_properties(name: str) -> None:
    assert PROPERTIES[name].lower == 0
