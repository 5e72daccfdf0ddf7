"""Request limits: body size, rate, authentication."""
