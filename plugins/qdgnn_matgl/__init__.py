"""Published potentials (SevenNet-0, M3GNet, CHGNet) as teachers for a faster student."""

from __future__ import annotations

from qdgnn_matgl.teacher import (
    RelaxedTeacher,
    Teacher,
    load_chgnet,
    load_m3gnet,
    load_sevennet,
)

__all__ = ["RelaxedTeacher", "Teacher", "load_chgnet", "load_m3gnet", "load_sevennet"]
