"""Floor 2: files, splits and batches."""
