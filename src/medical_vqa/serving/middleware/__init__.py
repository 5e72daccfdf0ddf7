"""What every request passes before and after its route: pure ASGI middleware, one module each, composed in `stack`."""
