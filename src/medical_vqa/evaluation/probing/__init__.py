"""Probing: the same questions with replaced pictures and in other words, to see what answers depend on."""
