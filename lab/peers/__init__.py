"""Other servers beside ours: started with the same model, asked the same pictures."""
