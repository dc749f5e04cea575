"""A recipe becomes a network with its weights, labels and preprocessing."""
