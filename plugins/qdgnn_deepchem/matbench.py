"""Matbench's crystals with labels, downloaded on the first use: perovskites, formation energies,
band gaps and metals.

Dunn, Wang, Ganose, Dopp, Jain, npj Comput. Mater. 6, 138 (2020). Addresses and hashes are those of
matminer's ``dataset_metadata.json``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from deepchem.feat import Featurizer
from deepchem.molnet.load_function.molnet_loader import TransformerGenerator
from deepchem.splits import Splitter
from deepchem.utils.data_utils import get_data_dir

from qdgnn_deepchem.datasets import Loaded, load_qdgnn_dataset

_CHUNK = 1 << 20
_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of matbench."""

    url: str
    """Address of a gzipped JSON document with "columns" and "data"."""
    sha256: str
    """Of the file."""
    column: str
    """Column of the labels."""
    task: str
    """What they are called here: a property of qdgnn_ase, in its unit."""
    per_cell: bool = False
    """Whether they are of the cell and become those of an atom."""


_FOLDER = "https://ml.materialsproject.org/projects"
SOURCES = {
    "perovskites": Source(
        url=f"{_FOLDER}/matbench_perovskites.json.gz",
        sha256="4641e2417f8ec8b50096d2230864468dfa08278dc9d257c327f65d0305278483",
        column="e_form",
        task="formation_energy",
        per_cell=True,
    ),
    "mp_e_form": Source(
        url=f"{_FOLDER}/matbench_mp_e_form.json.gz",
        sha256="dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f",
        column="e_form",
        task="formation_energy",
    ),
    "mp_gap": Source(
        url=f"{_FOLDER}/matbench_mp_gap.json.gz",
        sha256="58b65746bd88329986ed66031a2ac1369c7c522f7bc9f9081528e07097c2c057",
        column="gap pbe",
        task="band_gap",
    ),
    "mp_is_metal": Source(
        url=f"{_FOLDER}/matbench_mp_is_metal.json.gz",
        sha256="9a028ed5750a4c76ca36e9f3c8d48fe0bf3fb21b76ec2289e58ae7048d527919",
        column="is_metal",
        task="metal_probability",
    ),
}


def load_perovskite(**options: Any) -> Loaded:
    """18,928 perovskites, heat of formation in eV/atom (RPBE); options as `load_matbench`."""
    return load_matbench("perovskites", **options)


def load_mp_formation_energy(**options: Any) -> Loaded:
    """132,752 crystals, formation energy in eV/atom (PBE); options as `load_matbench`."""
    return load_matbench("mp_e_form", **options)


def load_band_gap(**options: Any) -> Loaded:
    """106,113 crystals, band gap in eV (PBE); options as `load_matbench`.

    DeepChem's own set of gaps has formulas only, no structures.
    """
    return load_matbench("mp_gap", **options)


def load_metallicity(**options: Any) -> Loaded:
    """106,113 crystals, 1 for a metal and else 0; options as `load_matbench`."""
    return load_matbench("mp_is_metal", **options)


def load_matbench(
    name: str,
    *,
    featurizer: Featurizer | None = None,
    splitter: Splitter | str | None = "formula",
    transformers: Sequence[TransformerGenerator | str] = (),
    reload: bool = True,
    data_dir: str | Path | None = None,
    save_dir: str | Path | None = None,
) -> Loaded:
    """Load one of `SOURCES`, downloading it to ``data_dir`` on the first use.

    Args:
        name: Key of `SOURCES`.
        featurizer: As `load_qdgnn_dataset`, like the following.
        splitter: Formula, a name of MolNet, a Splitter or None.
        transformers: Names of MolNet or generators.
        reload: Keep the featurized sets.
        data_dir: Folder of the downloaded file; DeepChem's data folder if not given.
        save_dir: Folder of the featurized sets; DeepChem's data folder if not given.

    Raises:
        ConnectionError: If the file is not there and cannot be downloaded; the message tells where
            to put a copy.
        ValueError: If the file is not the one that is expected.
    """
    source = SOURCES[name]
    folder = Path(data_dir or get_data_dir())
    lines = folder / f"matbench_{name}.jsonl.gz"
    if not lines.is_file():
        archive = folder / Path(source.url).name
        if not archive.is_file():
            download(source.url, archive)
        _check(archive, source)
        _convert(archive, lines, source)
    return load_qdgnn_dataset(
        lines, [source.task], featurizer, splitter, transformers, reload, save_dir=save_dir
    )


def download(url: str, target: Path) -> None:
    """Bring a file here; ``target`` is whole or not there.

    Raises:
        ConnectionError: If the address cannot be read.
    """
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"address must begin with https:// or http://, got {url}")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(target)
    try:
        with urlopen(url, timeout=_TIMEOUT) as answer, beside.open("wb") as file:  # noqa: S310
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
        beside.replace(target)
    except OSError as error:  # URLError and time-outs are of this kind
        raise ConnectionError(
            f"{url} must be reachable, got: {error}; without network bring the file to {target}"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _check(archive: Path, source: Source) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise ValueError(
            f"{archive} must have the sha256 {source.sha256}, got {digest}; it is cut off or "
            "another version: delete it and load again"
        )


def _convert(archive: Path, lines: Path, source: Source) -> None:
    """Matbench's document -> JSON lines that `qdgnn_ase.read_structures` reads."""
    with gzip.open(archive, "rt", encoding="utf-8") as file:
        document = json.load(file)
    beside = _beside(lines)
    try:
        with gzip.open(beside, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in _rows(document, source))
        beside.replace(lines)
    finally:
        beside.unlink(missing_ok=True)


def _rows(document: dict[str, Any], source: Source) -> Iterator[dict[str, Any]]:
    columns = document["columns"]
    structure, label = columns.index("structure"), columns.index(source.column)
    for row in document["data"]:
        sites = row[structure]["sites"]
        value = float(row[label]) / (len(sites) if source.per_cell else 1)
        yield {
            "lattice": row[structure]["lattice"]["matrix"],
            "species": [_element(site) for site in sites],
            "frac_coords": [site["abc"] for site in sites],
            source.task: value,
        }


def _element(site: dict[str, Any]) -> str:
    kinds = site["species"]
    if len(kinds) != 1 or kinds[0]["occu"] != 1:
        raise ValueError(f"sites must be fully occupied by one element, got {kinds}")
    return str(kinds[0]["element"])


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
