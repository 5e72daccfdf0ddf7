"""A dataset checked and written in one layout for every later stage, and the rows selected from it."""
