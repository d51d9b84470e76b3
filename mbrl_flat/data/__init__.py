"""Replay and the batches drawn from it."""
