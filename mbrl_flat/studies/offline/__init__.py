"""World models learned from a fixed set of recorded transitions, without any control."""
