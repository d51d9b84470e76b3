"""One file for each study; ``configs/experiment/NAME.yaml`` chooses it by name."""
