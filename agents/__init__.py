"""World-model agents, one folder for each paper."""
