"""What the applications of Serve and their deployments are called."""

DEPLOYMENT = "Model"  # the one of each model's application
SHELF_APPLICATION, SHELF = "on-demand", "Shelf"  # loads archives when they are asked for
INGRESS_APPLICATION, INGRESS = "vision", "Ingress"  # what HTTP reaches
