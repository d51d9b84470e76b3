"""Optimizers: one protocol, one registry, one file for each method."""
