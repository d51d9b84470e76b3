"""Many runs side by side: one page, one table, a few figures."""
