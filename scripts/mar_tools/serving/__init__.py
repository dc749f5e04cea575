"""One TorchServe: its settings, processes, API, health, drains and upgrades."""
