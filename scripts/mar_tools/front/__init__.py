"""nginx in front of TorchServe, for clients of other machines."""
