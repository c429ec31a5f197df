"""`rembert-ray compare`: two outputs of one task, row by row, without Ray, torch or a model."""
