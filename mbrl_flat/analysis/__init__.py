"""Statistics over runs and the style of every figure."""
