"""Phonons of NaCl with the default potential, and a thermal data set made of them."""

from pathlib import Path

from ase.build import bulk

from qdgnn_ase import QDGNNCalculator
from qdgnn_phonons import (
    PhononConfig,
    band_structure,
    harmonic_phonons,
    lindemann_melting,
    measure_diversity,
    normal_modes,
    relax_crystal,
    sample_frames,
    save_phonons,
    stability_of,
    thermal_properties,
    write_dataset,
)

atoms = bulk("NaCl", "rocksalt", a=5.64)
atoms.calc = QDGNNCalculator(dtype="float64")  # differences of forces need double precision
config = PhononConfig(supercell=(2, 2, 2))
crystal = relax_crystal(atoms, config)
phonon = harmonic_phonons(crystal, config)
print(stability_of(phonon))

bands = band_structure(phonon)
print("path:", " ".join(bands.labels), f"up to {max(f.max() for f in bands.frequencies):.2f} THz")
room = thermal_properties(phonon, [300.0], mesh=30.0)
print(f"heat capacity at 300 K: {room.heat_capacity_j_mol_k[0]:.2f} J/(mol K) per mole of atoms")
melting = lindemann_melting(phonon, mesh=30.0)
print(f"Lindemann melting: {melting.temperature_celsius:.0f} °C; {melting.assumption}")
save_phonons(phonon, "NaCl_phonons")  # phonopy reads the folder's phonopy.yaml

modes = normal_modes(phonon)
frames = sample_frames(modes, "phonon", temperatures=[300.0, 600.0], n=50, seed=0)
write_dataset(frames, "NaCl_thermal.extxyz")
print(measure_diversity(frames))
print(f"wrote {len(frames)} frames of {len(frames[0])} atoms,", Path("NaCl_thermal.extxyz").name)
