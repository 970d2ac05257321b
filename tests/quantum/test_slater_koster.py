"""Blocks of two atoms against the table of Slater and Koster (Phys. Rev. 94, 1498, Table I)."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from qdgnn_ase.quantum.slater_koster import slater_koster
from qdgnn_ase.quantum.tight_binding import HOPPINGS, TightBinding

ORBITALS = ["s", "x", "y", "z", "xy", "yz", "zx", "x2-y2", "3z2-r2"]
ROOT3 = 3**0.5


def d_matrices() -> Tensor:
    return (TightBinding().quadrupole / 1.5**0.5).view(5, 3, 3)


def table(v: dict[str, float], l: float, m: float, n: float) -> dict[tuple[str, str], float]:  # noqa: E741
    """The entries as printed; the others follow by cyclic permutation."""
    z2 = n**2 - (l**2 + m**2) / 2
    xx = l**2 - m**2
    sigma, pi, delta = v["dd_sigma"], v["dd_pi"], v["dd_delta"]
    pd, pdp = v["pd_sigma"], v["pd_pi"]
    return {
        ("s", "s"): v["ss_sigma"],
        ("s", "x"): l * v["sp_sigma"],
        ("x", "x"): l**2 * v["pp_sigma"] + (1 - l**2) * v["pp_pi"],
        ("x", "y"): l * m * (v["pp_sigma"] - v["pp_pi"]),
        ("x", "z"): l * n * (v["pp_sigma"] - v["pp_pi"]),
        ("s", "xy"): ROOT3 * l * m * v["sd_sigma"],
        ("s", "x2-y2"): ROOT3 / 2 * xx * v["sd_sigma"],
        ("s", "3z2-r2"): z2 * v["sd_sigma"],
        ("x", "xy"): ROOT3 * l**2 * m * pd + m * (1 - 2 * l**2) * pdp,
        ("x", "yz"): ROOT3 * l * m * n * pd - 2 * l * m * n * pdp,
        ("x", "zx"): ROOT3 * l**2 * n * pd + n * (1 - 2 * l**2) * pdp,
        ("x", "x2-y2"): ROOT3 / 2 * l * xx * pd + l * (1 - l**2 + m**2) * pdp,
        ("y", "x2-y2"): ROOT3 / 2 * m * xx * pd - m * (1 + l**2 - m**2) * pdp,
        ("z", "x2-y2"): ROOT3 / 2 * n * xx * pd - n * xx * pdp,
        ("x", "3z2-r2"): l * z2 * pd - ROOT3 * l * n**2 * pdp,
        ("z", "3z2-r2"): n * z2 * pd + ROOT3 * n * (l**2 + m**2) * pdp,
        ("xy", "xy"): 3 * l**2 * m**2 * sigma
        + (l**2 + m**2 - 4 * l**2 * m**2) * pi
        + (n**2 + l**2 * m**2) * delta,
        ("xy", "yz"): 3 * l * m**2 * n * sigma
        + l * n * (1 - 4 * m**2) * pi
        + l * n * (m**2 - 1) * delta,
        ("xy", "x2-y2"): l * m * xx * (1.5 * sigma - 2 * pi + 0.5 * delta),
        ("yz", "x2-y2"): 1.5 * m * n * xx * sigma
        - m * n * (1 + 2 * xx) * pi
        + m * n * (1 + xx / 2) * delta,
        ("xy", "3z2-r2"): ROOT3
        * (l * m * z2 * sigma - 2 * l * m * n**2 * pi + l * m * (1 + n**2) / 2 * delta),
        ("x2-y2", "x2-y2"): 0.75 * xx**2 * sigma
        + (l**2 + m**2 - xx**2) * pi
        + (n**2 + xx**2 / 4) * delta,
        ("x2-y2", "3z2-r2"): ROOT3
        * (xx * z2 * sigma / 2 - n**2 * xx * pi + (1 + n**2) * xx / 4 * delta),
        ("3z2-r2", "3z2-r2"): z2**2 * sigma
        + 3 * n**2 * (l**2 + m**2) * pi
        + 0.75 * (l**2 + m**2) ** 2 * delta,
    }


@pytest.fixture
def hoppings() -> Tensor:
    return torch.randn(len(HOPPINGS), generator=torch.manual_seed(1), dtype=torch.float64)


def test_every_entry_of_the_table(hoppings: Tensor) -> None:
    v = dict(zip(HOPPINGS, hoppings.tolist(), strict=True))
    for unit in Rotation.random(3, random_state=0).as_matrix()[:, 0]:
        block = slater_koster(hoppings[None], torch.tensor(unit)[None], d_matrices())[0]
        for (row, column), value in table(v, *unit).items():
            got = block[ORBITALS.index(row), ORBITALS.index(column)].item()
            assert got == pytest.approx(value, abs=1e-12), (row, column)


def test_the_table_finds_a_wrong_sign(hoppings: Tensor) -> None:
    """Negative control: a flipped integral shows."""
    v = dict(zip(HOPPINGS, hoppings.tolist(), strict=True))
    unit = Rotation.random(random_state=0).as_matrix()[0]
    for name in ("pd_pi", "dd_delta", "sp_sigma"):
        wrong = table(v | {name: -v[name]}, *unit)
        assert any(abs(wrong[key] - value) > 1e-3 for key, value in table(v, *unit).items())


def test_the_way_back_is_the_transpose(hoppings: Tensor) -> None:
    names = list(HOPPINGS)
    back = hoppings[[names.index(name[1::-1] + name[2:]) for name in names]]
    unit = torch.tensor(Rotation.random(random_state=2).as_matrix()[:1])
    there = slater_koster(hoppings[None], unit, d_matrices())[0]
    torch.testing.assert_close(slater_koster(back[None], -unit, d_matrices())[0], there.T)
