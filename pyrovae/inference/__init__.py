"""Training: log-weights, objectives, gradients, and the steps of an optimizer."""
