"""A function of tensors, captured, guarded, compiled: knows nothing of bounds or VAEs."""
