"""The tasks. The file name is the word of the manifest: `tasks/tag.py` is `task: tag`."""
