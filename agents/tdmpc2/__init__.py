"""TD-MPC2 (Hansen et al., 2024, arXiv:2310.16828)."""
