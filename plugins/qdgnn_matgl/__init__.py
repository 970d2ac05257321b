"""Published potentials (M3GNet of matgl, CHGNet) as teachers for a faster student."""

from __future__ import annotations

from qdgnn_matgl.teacher import RelaxedTeacher, Teacher, load_chgnet, load_m3gnet

__all__ = ["RelaxedTeacher", "Teacher", "load_chgnet", "load_m3gnet"]
