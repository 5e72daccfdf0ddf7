"""Decides that an answer must be withheld."""
