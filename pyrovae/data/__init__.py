"""Images as tensors: found or downloaded, read, split as their papers split them, and shuffled into batches."""
