"""The training loop: collecting, learning, clocks, meters, checkpoints."""
