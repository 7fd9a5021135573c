"""Weights from and to other code bases."""
