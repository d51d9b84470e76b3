"""Where metrics go: JSON lines always, console and Weights & Biases beside them."""
