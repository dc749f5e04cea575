"""The vision core: images in, predictions out, on any backend, with or without TorchServe."""
