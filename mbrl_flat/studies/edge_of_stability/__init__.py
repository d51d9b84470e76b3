"""Models of training at the edge of stability, and what is measured on networks there."""
