"""A server of ours to be hurt: its archives, its traffic, what is claimed of it and what was found."""
