"""Train in DeepChem: featurize, split by formula, fit, predict with uncertainties, keep."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

warnings.filterwarnings("ignore", module="deepchem")
import deepchem as dc  # noqa: E402

from qdgnn_ase import Predictor, Property, QDGNNConfig  # noqa: E402
from qdgnn_deepchem import FormulaSplitter, QDGNNFeaturizer, QDGNNModel  # noqa: E402

CATIONS = ("Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Ti", "Mn", "Ni", "Zn", "Cd")
ANIONS = ("O", "S", "Se", "Te", "F", "Cl", "Br", "I", "P")


def salts() -> tuple[list[Atoms], np.typing.NDArray[np.float64]]:
    """Rock salts with a made-up label: the attraction of the charges, eV/atom."""
    crystals, labels = [], []
    for cation in CATIONS:
        for anion in ANIONS:
            distance = sum(covalent_radii[atomic_numbers[symbol]] for symbol in (cation, anion))
            crystals.append(bulk(cation + anion, "rocksalt", a=2 * distance))
            labels.append([-0.5 * 1.7476 * 14.4 / distance])
    return crystals, np.array(labels)


def main() -> None:
    torch.set_num_threads(1)  # more are slower for small tensors
    crystals, labels = salts()
    graphs = QDGNNFeaturizer().featurize(crystals)
    train, valid, test = FormulaSplitter().train_valid_test_split(
        dc.data.NumpyDataset(graphs, labels), frac_train=0.6, frac_valid=0.2, frac_test=0.2
    )
    folder = Path(tempfile.mkdtemp())
    task = Property(
        name="attraction", unit="eV/atom", description="of point charges", pooling="atoms"
    )
    model = QDGNNModel(
        tasks=[task],
        trunk=QDGNNConfig(hidden=32, n_layers=2),
        batch_size=16,
        learning_rate=dc.models.optimizers.ExponentialDecay(5e-3, 0.1, 150),
        model_dir=str(folder),
    )
    model.fit(train, nb_epoch=30)
    metric = dc.metrics.Metric(dc.metrics.mae_score)
    print("test error:", model.evaluate(test, [metric])["mae_score"], "eV/atom")

    model.calibrate(valid)
    value, std = model.predict_uncertainty(test)
    for k, graph in enumerate(test.X[:5]):
        print(f"{graph.formula}: {value[k, 0]:.2f} ± {std[k, 0]:.2f} eV/atom")

    model.save_checkpoint()  # DeepChem restores it, and the core reads it without DeepChem
    prediction = Predictor(folder / "qdgnn.safetensors")([crystals[0]])[0]["attraction"]
    print(f"{crystals[0].symbols}: {prediction.value:.2f} {prediction.unit}")


if __name__ == "__main__":
    main()
