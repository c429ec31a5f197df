"""A first manifest: what corpus and checkpoint say, proposals made of that, and the commented YAML."""
