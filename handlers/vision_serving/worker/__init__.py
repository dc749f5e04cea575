"""TorchServe's side: what a worker process does around the request flow."""
