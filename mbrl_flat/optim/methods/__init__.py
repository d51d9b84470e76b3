"""One file for each method; importing a file registers the method."""
