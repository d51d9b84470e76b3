"""Supervised benchmarks: the claims of the optimizers' papers, checked one by one."""
