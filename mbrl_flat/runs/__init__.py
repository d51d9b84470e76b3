"""One run: its configuration, its folder, and building, training, evaluating and probing it."""
