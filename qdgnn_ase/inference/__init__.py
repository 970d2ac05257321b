"""Floor 5: the calculator, evaluation and simulations."""
