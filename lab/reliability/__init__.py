"""What must hold when requests are hostile and processes die, and the traffic that shows whether it does."""
