"""Hostile bytes for everything that reads a file of somebody else; see `targets` for what, `__main__` for how."""
