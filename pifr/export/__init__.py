"""What a frontalized face is written to: meshes, pictures of every step, ONNX files of the networks."""
