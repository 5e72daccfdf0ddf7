"""Decoding of uploads outside the server's process: `pool` divides them among processes, `upload` decodes one."""
