"""What `qdgnn phonons` computes, writes and says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from phonopy import Phonopy

from qdgnn_phonons.config import PhononConfig
from qdgnn_phonons.figures import plot_bands, plot_thermal
from qdgnn_phonons.files import save_phonons
from qdgnn_phonons.spectrum import band_structure, density_of_states, last_peak
from qdgnn_phonons.stability import stability_of
from qdgnn_phonons.thermal import lindemann_melting, thermal_displacements, thermal_properties
from qdgnn_phonons.volume import gruneisen, quasi_harmonic

Report = dict[str, Any]
_ROOM = 300.0
_STEPS = 50


def thermal_report(
    phonon: Phonopy,
    folder: Path,
    *,
    path: str,
    t_max: float,
    mesh: float,
    allow_imaginary: bool,
    title: str,
) -> Report:
    """Bands, density of states and harmonic thermal properties, with their files and pictures.

    Raises:
        ImaginaryModesError: After the bands are written, if there are such modes.
    """
    bands = band_structure(phonon, path)
    dos = density_of_states(phonon, mesh)
    save_phonons(phonon, folder)
    plot_bands(bands, dos, folder / "bands.png", title)
    temperatures = np.unique([*np.linspace(0.0, t_max, _STEPS + 1), min(_ROOM, t_max)])
    thermal = thermal_properties(phonon, temperatures, mesh, allow_imaginary=allow_imaginary)
    squares = thermal_displacements(phonon, temperatures, mesh, allow_imaginary=allow_imaginary)
    plot_thermal(thermal, squares, phonon.primitive.symbols, folder / "thermal.png")
    save_phonons(phonon, folder)
    room = int(np.searchsorted(temperatures, min(_ROOM, t_max)))
    report: Report = {
        "last_peak_thz": last_peak(dos),
        "thermal": {name: values.tolist() for name, values in asdict(thermal).items()},
        "mean_square_displacements": squares.tolist(),
    }
    lines = [
        f"last peak {report['last_peak_thz']:.2f} THz",
        f"{temperatures[room]:g} K: heat capacity {thermal.heat_capacity_j_mol_k[room]:.2f} and "
        f"entropy {thermal.entropy_j_mol_k[room]:.2f} J/(mol K) per mole of atoms",
    ]
    if stability_of(phonon).is_stable:
        melting = lindemann_melting(phonon, mesh=mesh)
        report["melting"] = asdict(melting)
        lines.append(f"Lindemann: {melting.temperature_celsius:.0f} °C ({melting.assumption})")
    return report | {"summary": lines}


def volume_report(
    crystal: Atoms, phonon: Phonopy, config: PhononConfig, t_max: float, mesh: float
) -> Report:
    """Grüneisen parameter and thermal expansion.

    Raises:
        ImaginaryModesError: If there are modes without a restoring force at one of the volumes.
    """
    gamma = gruneisen(crystal, phonon, config, mesh=mesh).mean()
    result = quasi_harmonic(crystal, np.linspace(0.0, t_max, _STEPS + 1), config, mesh=mesh)
    return {
        "gruneisen": gamma,
        "quasi_harmonic": {name: values.tolist() for name, values in asdict(result).items()},
    }
