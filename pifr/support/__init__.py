"""What the pipeline rests on and knows nothing of faces: files, devices, rows of batches, configuration, workers."""
