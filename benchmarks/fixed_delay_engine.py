"""An engine that answers every chat completion after a fixed delay with the last word of its question.

It measures what stands in front of it, and nothing of a model. `GET /asked` tells how often each question was asked.

    python benchmarks/fixed_delay_engine.py PORT MILLISECONDS
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter


class Engine:
    """One process with one event loop; requests wait and do not compute."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.counts: Counter[str] = Counter()

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self.connection, "127.0.0.1", port, limit=1 << 26, backlog=1024)
        async with server:
            await server.serve_forever()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                lengths = [
                    line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length")
                ]
                body = await reader.readexactly(int(lengths[0])) if lengths else b""
                content = json.dumps(await self.answer(path, body)).encode()
                reply = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
                writer.write(reply.encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, path: str, body: bytes) -> object:
        if path == "/asked":
            return self.counts
        if path.endswith("/models"):
            return {"object": "list", "data": [{"id": "m", "object": "model"}]}
        content = json.loads(body)["messages"][-1]["content"]
        text = next(part["text"] for part in content if part["type"] == "text")
        pictures = sum(part["type"] == "image_url" for part in content)
        self.counts[text.rsplit("Question: ", maxsplit=1)[-1]] += 1
        await asyncio.sleep(self.delay)
        message = {"role": "assistant", "content": text.split()[-1].rstrip("?")}
        usage = {"prompt_tokens": 20 + 256 * pictures, "completion_tokens": 1}
        return {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


if __name__ == "__main__":
    asyncio.run(Engine(float(sys.argv[2]) / 1000).serve(int(sys.argv[1])))
