"""Models trained on real data, ready to export, package and serve."""
