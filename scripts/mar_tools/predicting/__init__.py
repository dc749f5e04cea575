"""Image files become answers, and answers become tables, CSV, JSON lines and COCO results."""
