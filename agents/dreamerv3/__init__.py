"""DreamerV3 (Hafner et al., arXiv:2301.04104)."""
