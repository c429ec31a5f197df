"""Tokenizers: text in, flat token ids out. They import neither torch nor ray, and never pad."""
