"""Modern Hopfield energy: which memories a new set of memories makes a model forget."""
