"""TWISTER: a transformer world model with action-conditioned contrastive prediction."""
