"""RemBERT: configuration, layers, heads, checkpoints. Import a class from its file or from `rembert_ray`."""
