"""Files of weights as training programs leave them, written here and read as a build reads them."""
