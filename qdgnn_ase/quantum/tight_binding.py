"""Tier T1, local form: two-centre hoppings and rotation invariants of A_i = sum_j H_ij H_ij^T.

Levels eps_s, eps_p, eps_d of the free atoms (tier T0) and Harrison's universal hoppings: with
b = hbar^2 / m_e, the envelope f_c and the d radius r_d,

    V_ll'm = eta_ll'm b f_c x { d^-2 (s, p);  r_d^(3/2) d^-(7/2) (s-d, p-d);
                                (r_di r_dj)^(3/2) d^-5 (d-d) }

where d^4 -> d^4 + (1 Å)^4 keeps them bounded and changes 1.5 % of d at 2 Å. eta: Harrison,
Electronic Structure and the Properties of Solids (1980) for d with s and p, Elementary Electronic
Structure (1999) for s and p; d with d: Wills and Harrison, Phys. Rev. B 28, 4363 (1983).
H and He have the s shell only; d takes part from calcium on in groups 2 to 12 and the f block.

Convention: in every name the first letter is the shell of atom i (destination of the edge, row of
H_ij), the second that of atom j (source, column), and r points from i to j. Values are the bare
integrals: V_sp and V_ps have one sign, the matrix element carries (-1)^(l + l') if l > l'. So
V_sp(i, j) = V_ps(j, i).

In the bond frame H_ij is block diagonal in m. With sigma, pi, delta the sums of squares of the
integrals that reach that orbital of i, and the tensors Y2, Y4 of the unit vector (|Y| = 1),

    A_ss = sum_j sigma,  A_pp = sum_j [(sigma + 2 pi) / 3 + (sigma - pi) sqrt(2/3) Y2],
    A_dd = sum_j [(sigma + 2 pi + 2 delta) / sqrt(5) T0 + (2 sigma + 2 pi - 4 delta) / sqrt(14) Y2
                  + (6 sigma - 8 pi + 2 delta) / sqrt(70) Y4]   (T0 the normalised unit matrix),

and tr A^2 is the sum of squares of these 1 + 5 + 9 components: edges are summed only, no 9 x 9
block is formed.
"""

from __future__ import annotations

import numpy as np
import torch
from ase.units import Bohr, Hartree
from numpy.typing import NDArray
from torch import Tensor, nn

from qdgnn_ase.quantum.atomic import N_ELEMENTS, atomic_table

Array = NDArray[np.float64]

HOPPINGS: dict[str, float] = {
    "ss_sigma": -1.32,
    "sp_sigma": 1.42,
    "ps_sigma": 1.42,
    "pp_sigma": 2.22,
    "pp_pi": -0.63,
    "sd_sigma": -3.16,
    "ds_sigma": -3.16,
    "pd_sigma": -2.95,
    "pd_pi": 1.36,
    "dp_sigma": -2.95,
    "dp_pi": 1.36,
    "dd_sigma": -45 / np.pi,
    "dd_pi": 30 / np.pi,
    "dd_delta": -7.5 / np.pi,
}
"""Columns of the hoppings and their eta_ll'm."""
EDGE_FEATURES = ("ss_sigma", "pp_sigma", "sd_sigma", "ds_sigma", "dd_sigma")
"""Hoppings worth showing to a network; the others are constants times these (but for H and He)."""
NODE_FEATURES = ("trace_ss", "trace_pp", "trace_dd", "anisotropy_p", "anisotropy_d", "transfer")
"""Columns of `TightBinding.node_features`."""
MOMENTS = ("tr_ss", "tr_pp", "tr_pp2", "tr_dd", "tr_dd2", "transfer")
"""Columns of `TightBinding.moments`: eV^2, eV^2, eV^4, eV^2, eV^4, eV^3."""

HBAR2_OVER_MASS = Hartree * Bohr**2
"""7.62 eV Å^2."""
SHORT_RANGE = 1.0
"""Å; below it the hoppings level off."""
MAX_D_RADIUS = 1.6
"""Å; the d states of Ca, Sr, Ba and Ra are more diffuse in the free atom than in a solid."""
HOPPING_SCALE = 1.0
"""eV."""
MOMENT_SCALE = 1.0
"""eV^2."""
LEVEL_SCALE = 10.0
"""eV."""

_SHELLS = "spd"
_D_BLOCKS = ((20, 30), (38, 48), (56, 80), (88, 94))
_POWERS = ("ss sp ps pp", "sd ds pd dp", "dd")  # d^-2, d^-7/2, d^-5
_WEIGHTS: dict[str, dict[str, tuple[float, ...]]] = {
    "s": {"sigma": (1.0,)},
    "p": {"sigma": (1.0, (2 / 3) ** 0.5), "pi": (2.0, -((2 / 3) ** 0.5))},
    "d": {
        "sigma": (1.0, 2 / 14**0.5, 6 / 70**0.5),
        "pi": (2.0, 2 / 14**0.5, -8 / 70**0.5),
        "delta": (2.0, -4 / 14**0.5, 2 / 70**0.5),
    },
}
"""By shell of i and kind of bond: share of a squared hopping in tr A, Y2 and Y4."""
_TERMS = (("s", 0), ("p", 0), ("d", 0), ("p", 1), ("d", 1), ("d", 2))


class TightBinding(nn.Module):
    """Hoppings and moments as functions of edge tensors; no parameters, nothing in a checkpoint.

    The caller sums over edges, because the way to do that belongs to the network.
    """

    eta: Tensor
    shells: Tensor
    multiplicity: Tensor
    shown: Tensor
    amplitudes: Tensor
    steps: Tensor
    squares: Tensor
    quadrupole: Tensor
    hexadecapole: Tensor

    def __init__(self) -> None:
        super().__init__()
        first = [_SHELLS.index(name[0]) for name in HOPPINGS]
        second = [_SHELLS.index(name[1]) for name in HOPPINGS]
        amplitudes, levels = shell_amplitudes(), shell_levels()
        multiplicity = np.array([1.0 if "sigma" in name else 2.0 for name in HOPPINGS])
        y2 = _quadrupole_basis()
        constants = {
            "eta": _eta_matrix(),
            "shells": np.hstack([amplitudes, levels]),
            "multiplicity": multiplicity,
            "shown": np.array([[h == e for e in EDGE_FEATURES] for h in HOPPINGS]) / HOPPING_SCALE,
            # of each pair of elements (i, j), in row 95 i + j
            "amplitudes": _pairs(amplitudes[:, first], amplitudes[:, second], np.multiply),
            "steps": multiplicity * _pairs(-levels[:, first], levels[:, second], np.add),
            "squares": _square_matrix().T,
            "quadrupole": 1.5**0.5 * y2.reshape(5, 9),
            "hexadecapole": (35 / 18) ** 0.5 * _hexadecapole_basis(y2),
        }
        for name, values in constants.items():  # float64 until the model is cast: no digit is lost
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.first, self.second = first, second

    def mixed(self, fractions: Tensor) -> Tensor:
        """Mean amplitudes and levels of sites that elements share, (n_atoms, 6).

        Their rows for the ends of edges go where atomic numbers go otherwise (virtual crystal).

        Args:
            fractions: (n_atoms, 94), share of each element in what is on a site.
        """
        return fractions @ self.shells[1:].to(fractions.dtype)

    def hoppings(
        self, distance: Tensor, envelope: Tensor, numbers_i: Tensor, numbers_j: Tensor
    ) -> Tensor:
        """Integrals V in eV, (n_edges, 14), columns as in ``HOPPINGS``.

        Args:
            distance: (n_edges, 1), Å.
            envelope: (n_edges, 1), f_c; its smoothness at the cutoff is that of the result.
            numbers_i: (n_edges,) int64, atomic numbers of the destinations i; or rows of `mixed`.
            numbers_j: (n_edges,) int64, atomic numbers of the sources j; or rows of `mixed`.
        """
        inverse2 = (distance.square().square() + SHORT_RANGE**4).rsqrt()
        inverse = inverse2.sqrt()
        inverse3 = inverse2 * inverse
        powers = torch.cat([inverse2, inverse3 * inverse.sqrt(), inverse3 * inverse2], dim=1)
        dtype = distance.dtype
        if numbers_i.is_floating_point():
            amplitudes = numbers_i[:, self.first] * numbers_j[:, self.second]
        else:
            pair = numbers_i * (N_ELEMENTS + 1) + numbers_j
            amplitudes = self.amplitudes.to(dtype).index_select(0, pair)
        values: Tensor = (powers * envelope) @ self.eta.to(dtype) * amplitudes
        return values

    def edge_features(self, hoppings: Tensor) -> Tensor:
        """asinh(V / 1 eV), (n_edges, 5), columns as in ``EDGE_FEATURES``."""
        return torch.asinh(hoppings @ self.shown.to(hoppings.dtype))  # slices: a slow backward

    def edge_terms(
        self, hoppings: Tensor, unit: Tensor, numbers_i: Tensor, numbers_j: Tensor
    ) -> Tensor:
        """What the moments sum over the edges into an atom, (n_edges, 23).

        Three traces (eV^2), charge transfer (eV^3), 5 components of A_pp, 5 and 9 of A_dd (eV^2).

        Args:
            hoppings: (n_edges, 14), eV, of :meth:`hoppings`.
            unit: (n_edges, 3), unit vector from i to j.
            numbers_i: (n_edges,) int64, atomic numbers of the destinations i; or rows of `mixed`.
            numbers_j: (n_edges,) int64, atomic numbers of the sources j; or rows of `mixed`.
        """
        dtype = hoppings.dtype
        squares = hoppings.square()
        # columns first: products broadcast over whole rows of edges, three times as fast
        traces, p2, d2, d4 = (self.squares.to(dtype) @ squares.T).split([3, 1, 1, 1])
        steps = self._steps(numbers_i, numbers_j).to(dtype)
        transfer = (squares * steps).sum(dim=1)[None]
        x = unit.T.contiguous()
        y2 = self.quadrupole.to(dtype) @ (x[:, None] * x[None]).flatten(0, 1)
        y4 = self.hexadecapole.to(dtype) @ (y2[:, None] * y2[None]).flatten(0, 1)
        return torch.cat([traces, transfer, p2 * y2, d2 * y2, d4 * y4]).T

    def _steps(self, numbers_i: Tensor, numbers_j: Tensor) -> Tensor:
        """Level of j less that of i times multiplicity for each hopping in eV, (n_edges, 14)."""
        if numbers_i.is_floating_point():
            first, second = ([3 + shell for shell in part] for part in (self.first, self.second))
            return (numbers_j[:, second] - numbers_i[:, first]) * self.multiplicity
        return self.steps.index_select(0, numbers_i * (N_ELEMENTS + 1) + numbers_j)

    def moments(self, sums: Tensor) -> Tensor:
        """Tr A_ss, tr A_pp, tr A_pp^2, tr A_dd, tr A_dd^2 and the charge transfer, (n_atoms, 6).

        The charge transfer is sum_j sum_ll'm (eps_l'(j) - eps_l(i)) V_ll'm^2 over all s, p and d
        orbitals that take part, empty ones too, each m counted.

        Args:
            sums: (n_atoms, 23), sums of :meth:`edge_terms` over the edges into each atom.
        """
        traces, transfer, p2, d = sums.split([3, 1, 5, 14], dim=1)
        ss, pp, dd = traces.split(1, dim=1)
        pp2 = pp.square() / 3 + p2.square().sum(dim=1, keepdim=True)
        dd2 = dd.square() / 5 + d.square().sum(dim=1, keepdim=True)
        return torch.cat([ss, pp, pp2, dd, dd2, transfer], dim=1)

    def node_features(self, sums: Tensor) -> Tensor:
        """Dimensionless functions of the moments, (n_atoms, 6), columns as in ``NODE_FEATURES``.

        log(1 + tr A / u) / 3 for s, p and d with u = 1 eV^2; anisotropies
        (n tr A^2 - (tr A)^2) / ((n - 1) ((tr A)^2 + u^2)) for p (n = 3) and d (n = 5), 0 where all
        orbitals are equal, 1 where one has it all; charge transfer / (tr A + u) / 10 eV with the
        trace over s, p and d. All are 0, with all derivatives finite, where there is no neighbour.

        Args:
            sums: (n_atoms, 23), sums of :meth:`edge_terms` over the edges into each atom.
        """
        ss, pp, pp2, dd, dd2, transfer = self.moments(sums).split(1, dim=1)
        size = torch.log1p(torch.cat([ss, pp, dd], dim=1) / MOMENT_SCALE) / 3
        p = (3 * pp2 - pp.square()) / (2 * (pp.square() + MOMENT_SCALE**2))
        d = (5 * dd2 - dd.square()) / (4 * (dd.square() + MOMENT_SCALE**2))
        mean_step = transfer / (ss + pp + dd + MOMENT_SCALE) / LEVEL_SCALE
        return torch.cat([size, p, d, mean_step], dim=1)


def shell_amplitudes() -> Array:
    """1 (s), 1 or 0 (p) and r_d^(3/2) in Å^(3/2) or 0 (d) of each element, (95, 3); row 0 NaN."""
    z = np.arange(1, N_ELEMENTS + 1)
    has_d = np.any([(low <= z) & (z <= high) for low, high in _D_BLOCKS], axis=0)
    radius = np.minimum(atomic_table()["orbital_radius_d_angstrom"], MAX_D_RADIUS)
    values = np.stack([np.ones(N_ELEMENTS), z > 2, np.where(has_d, radius**1.5, 0.0)], axis=1)
    amplitudes: Array = np.vstack([np.full((1, 3), np.nan), values])
    return amplitudes


def shell_levels() -> Array:
    """eps_s, eps_p, eps_d in eV of each element (GFN1-xTB columns of T0), (95, 3); row 0 NaN."""
    values = np.stack([atomic_table()[f"level_{shell}_ev"] for shell in _SHELLS], axis=1)
    levels: Array = np.vstack([np.full((1, 3), np.nan), values])
    return levels


def _pairs(of_i: Array, of_j: Array, operation: np.ufunc) -> Array:
    """Every row of one table with every row of another, (95 * 95, n_columns)."""
    pairs: Array = operation(of_i[:, None], of_j[None]).reshape(-1, of_i.shape[1])
    return pairs


def _eta_matrix() -> Array:
    """Eta times hbar^2 / m_e, (3, 14): a row for each power of the distance."""
    matrix = np.zeros((3, len(HOPPINGS)))
    for column, (name, eta) in enumerate(HOPPINGS.items()):
        row = next(k for k, pairs in enumerate(_POWERS) if name[:2] in pairs.split())
        matrix[row, column] = eta * HBAR2_OVER_MASS
    return matrix


def _square_matrix() -> Array:
    """(14, 6): shares of the squared hoppings in the three traces and in Y2, Y2 and Y4."""
    matrix = np.zeros((len(HOPPINGS), len(_TERMS)))
    for row, name in enumerate(HOPPINGS):
        for column, (shell, part) in enumerate(_TERMS):
            if name[0] == shell:
                matrix[row, column] = _WEIGHTS[shell][name.split("_")[1]][part]
    return matrix


def _quadrupole_basis() -> Array:
    """Orthonormal traceless symmetric matrices, (5, 3, 3)."""
    x, y, z = np.eye(3)
    pairs = [np.outer(a, b) + np.outer(b, a) for a, b in ((x, y), (y, z), (z, x))]
    diagonals = [np.diag(x - y), np.diag(2 * z - x - y) / 3**0.5]
    basis: Array = np.stack([*pairs, *diagonals]) / 2**0.5
    return basis


def _hexadecapole_basis(y2: Array) -> Array:
    """Orthonormal l = 4 matrices over pairs of Y2 components, (9, 25).

    They are what is left of the 25 without the antisymmetric ones, the unit matrix (l = 0) and the
    five l = 2 matrices tr(E_a E_b E_c) + tr(E_a E_c E_b).
    """
    triple = np.einsum("aij,bjk,cki->abc", y2, y2, y2)
    unit = np.eye(25).reshape(5, 5, 25)
    antisymmetric = [unit[a, b] - unit[b, a] for a in range(5) for b in range(a)]
    quadrupoles = (triple + triple.swapaxes(1, 2)).reshape(5, 25)
    others = np.vstack([np.eye(5).reshape(1, 25), quadrupoles, antisymmetric])
    basis: Array = np.linalg.svd(others)[2][16:]
    return basis
