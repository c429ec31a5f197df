"""`rembert-ray convert`: checkpoints in older formats become safetensors folders. Nothing else reads those formats."""
