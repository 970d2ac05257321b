"""Real electronic-structure calculations as labels and descriptors, with a result store."""

from __future__ import annotations
