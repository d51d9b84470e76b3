"""Measurements of a frozen agent; none of them changes it."""
