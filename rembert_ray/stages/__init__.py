"""The stages of a shard's way through the pipeline: plain callables over Arrow tables, testable without Ray."""
