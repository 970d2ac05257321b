"""Markdown of `qdgnn bench-t1`."""

from __future__ import annotations

from typing import Any

from qdgnn_bench.t1_experiment import ARMS, decisive


def markdown(result: dict[str, Any]) -> str:
    """Verdict, errors, controls, subsets and cost."""
    needed, corrected = result["needed"], result["corrected"]
    gain = decisive(corrected)
    verdict = "is built in" if result["built_in"] else "stays outside the model"
    validation = result["cross_validation"]
    seeds = f"mean of {validation['seeds']} seeds" if validation["seeds"] > 1 else "one seed"
    return "\n".join(
        [
            "# Full tight binding (T1) and the errors of the property model",
            "",
            f"Made on {result['date']} ({result['machine']}) by `qdgnn bench-t1`; model of "
            f"{result['versions']}.",
            "",
            f"{result['structures']} structures of {result['file']} ({result['formulas']} "
            f"formulas, up to {result['max_atoms']} atoms) of the model's validation and test "
            f"folds; mean absolute error of its band gap {result['model_mae']:.3f} eV. Gradient "
            f"boosting learns the signed error, {validation['folds']} folds grouped by formula, "
            f"{seeds}. T0: composition and the model's own output. The model's own quantum "
            f"descriptors are `{result['model_quantum']}`.",
            "",
            f"**Beyond T0, T1 takes away {_share(gain)} of the error; {100 * needed:.0f} % were "
            f"asked for. The full form {verdict}.** The loss with the smallest error decides: "
            "where the correction by T0 makes the model worse, T1 may only undo that. (That rule "
            "was set after both losses had been seen.)",
            "",
            "| loss | features | MAE, eV | share of the model's error taken away beyond T0 |",
            "|---|---|---|---|",
            f"| | none (the model) | {result['model_mae']:.3f} | |",
            *[line for loss, row in corrected.items() for line in _rows(row, f"| {loss} ")],
            "",
            "Positive control: the gap itself from composition, without the model.",
            "",
            "| features | MAE, eV | share of the error with T0 taken away |",
            "|---|---|---|",
            *_rows(result["control"]),
            "",
            "| loss | subset | structures | model | " + " | ".join(ARMS) + " |",
            "|---|---|---|---|" + "---|" * len(ARMS),
            *[
                line
                for loss, subsets in result["subsets"].items()
                for line in _subset_rows(loss, subsets)
            ],
            "",
            _cost(result["cost"]),
            "",
        ]
    )


def _rows(result: dict[str, Any], start: str = "") -> list[str]:
    mae, reduction = result["mae"], result["reduction"]
    return [
        f"{start}| {arm} | {mae[arm]:.3f} | {_share(reduction[arm]) if arm in reduction else ''} |"
        for arm in ARMS
    ]


def _share(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['share']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _subset_rows(loss: str, subsets: dict[str, Any]) -> list[str]:
    return [
        f"| {loss} | {name} | {row['structures']} | "
        + " | ".join(f"{row[arm]:.3f}" if arm in row else "" for arm in ("model", *ARMS))
        + " |"
        for name, row in subsets.items()
    ]


def _cost(cost: dict[str, Any]) -> str:
    sizes = ", ".join(f"{name} {ms:.0f}" for name, ms in cost["t1_ms_by_size"].items())
    return (
        f"CPU ms per structure: prediction in batches of 64 {cost['predict_ms']:.1f}, tight "
        f"binding {cost['t1_ms']:.0f} ({sizes})."
    )
