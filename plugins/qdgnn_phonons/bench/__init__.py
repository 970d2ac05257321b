"""Phonons of a potential against published ones, and the comparison of data-set arms."""
