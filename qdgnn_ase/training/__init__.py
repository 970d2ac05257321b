"""Floor 4: losses, the training loop and checkpoints."""
