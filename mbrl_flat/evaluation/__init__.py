"""Episodes of a frozen agent, and what their returns are compared with."""
