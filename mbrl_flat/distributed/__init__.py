"""One run over several processes: who has which rows of a batch, and how they stay together."""
