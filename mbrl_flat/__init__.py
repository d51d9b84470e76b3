"""Model-based reinforcement learning for studying and using flat minima."""

__version__ = "0.1.0"
