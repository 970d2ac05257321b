"""Floor 2: quantum descriptors and element references."""
