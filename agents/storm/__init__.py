"""STORM: a stochastic transformer world model."""
