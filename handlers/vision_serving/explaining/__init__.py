"""Heat maps of what speaks for a class."""
