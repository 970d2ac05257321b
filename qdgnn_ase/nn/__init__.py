"""Floor 3: the network and its derivatives."""
