"""Cheap attacks on a running server: what each costs it, with `/healthz` probed from another process meanwhile.

Every attack meets a fresh `medical-vqa serve` with the shipped model. On Linux with a writable memory controller, and
root, the server and its decoders run in a control group of their own, whose limit is that of the Kubernetes and Cloud
Run files; its high-water mark is the peak. Attackers and the polite client have different addresses.

    python benchmarks/serve_attacks.py --limit-mib 1024 --out benchmarks/results/serve_attacks.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import io
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
from PIL import Image

MEBIBYTE = 1 << 20
CONTROLLER = Path("/sys/fs/cgroup/memory")
PATIENCE = 90.0  # seconds after which an attack's connection is given up
LATE = 5.0  # seconds after an attack at which memory is measured again


# --- the attacks: each returns a note of what its client received -----------------------------------------------------


async def chat_parts(port: int) -> str:
    content = b"[" + b",".join([b"{}"] * 500_000) + b"]"
    return await post(
        port, "/v1/chat/completions", b'{"model":"x","messages":[{"role":"user","content":%b}]}' % content
    )


async def unknown_keys(port: int, count: int = 500_000) -> str:
    return await post(port, "/ask_question", b"{" + b",".join(b'"%d":1' % n for n in range(count)) + b"}")


async def more_unknown_keys(port: int) -> str:
    return await unknown_keys(port, 2_500_000)


async def many_questions(port: int) -> str:
    return await post(
        port, "/ask_questions", b'{"image_id":"x","questions":[' + b",".join([b'""'] * 10_000_000) + b"]}"
    )


async def nested_lists(port: int) -> str:
    return await post(port, "/v1/chat/completions", b"[" * 1_000_000)


async def endless_header(port: int) -> str:
    reader, writer = await connect(port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
    sent, block = 0, b"a" * MEBIBYTE
    with contextlib.suppress(OSError):
        while sent < 200 * MEBIBYTE and not reader.at_eof():
            writer.write(block)
            await writer.drain()
            sent += len(block)
            await asyncio.sleep(0)
    note = f"{sent // MEBIBYTE} MiB accepted"
    writer.close()
    return note


async def endless_part_header(port: int) -> str:
    body = b'--b\r\nContent-Disposition: form-data; name="' + b"a" * (30 * MEBIBYTE)
    return await post(port, "/upload_image", body, "multipart/form-data; boundary=b")


async def half_bodies(port: int) -> str:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n"
    connections = [await connect(port) for _ in range(30)]

    async def send_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        try:
            async with asyncio.timeout(15):
                with contextlib.suppress(OSError):
                    writer.write(head + b'"')
                    for _ in range(15):
                        writer.write(b"a" * MEBIBYTE)
                        await writer.drain()
                return (await reader.read(15)).decode()[9:12] or "closed"
        except OSError:
            return "reset"
        except TimeoutError:
            return "held"

    notes = await asyncio.gather(*(send_half(*connection) for connection in connections))
    for _, writer in connections:
        writer.transport.abort()
    return counted(notes)


async def long_content_length(port: int) -> str:
    head = b"POST /ask_question HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    statuses = []
    for digits in (b"9" * 5_000, b"0" * 5_000):
        reader, writer = await connect(port)
        writer.write(head + digits + b"\r\n\r\n")
        statuses.append((await reader.read(15)).decode()[9:12] or "closed")
        writer.close()
    return counted(statuses)


async def large_pictures(port: int, side: int = 8000) -> str:
    """Two attackers, two uploads each at a time, for 20 seconds; a polite client asks about small pictures."""
    out = io.BytesIO()
    ramp = np.arange(side, dtype=np.uint16)
    Image.fromarray(ramp[:, None] + ramp[None, :]).save(out, "PNG")
    large, small = multipart(out.getvalue()), multipart(tiny_png(), question="Is it a CT?")
    until = time.monotonic() + 20
    statuses: list[str] = []
    latencies: list[float] = []
    polite: list[str] = []

    async def attack(source: str) -> None:
        while time.monotonic() < until:
            statuses.append(await post(port, "/upload_image", large, FORM, source))

    async def ask() -> None:
        while time.monotonic() < until:
            start = time.monotonic()
            polite.append(await post(port, "/ask", small, FORM, "127.0.0.9"))
            latencies.append(time.monotonic() - start)
            await asyncio.sleep(0.1)

    await asyncio.gather(*(attack(f"127.0.0.{2 + n % 2}") for n in range(4)), ask())
    return f"{counted(statuses)}; polite {counted(polite)}, slowest {max(latencies):.2f} s of {len(latencies)}"


async def largest_pictures(port: int) -> str:
    """The same with the largest pictures that the server accepts."""
    reader, writer = await connect(port)
    writer.write(b"GET /model HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    return await large_pictures(port, int(json.loads(body)["limits"]["max_pixels"] ** 0.5))


# --- neighbors of these: the same kinds of work, reached by other ways


async def nested_objects(port: int) -> str:
    """JSON as deep as the body allows, where each route parses it."""
    deep = b'{"image_id":' * 5_000
    bodies = [("/ask_question", deep), ("/ask_questions", deep), ("/v1/responses", b'{"input":' * 500_000)]
    bodies.append(("/jobs", b"\n".join([b'{"image_id":' * 500] * 5_000)))
    return counted([await post(port, path, body) for path, body in bodies])


async def huge_numbers(port: int) -> str:
    """Numbers of as many digits as the body allows, whose conversion to an integer takes quadratic time."""
    notes = [await post(port, "/ask_question", b'{"image_id":"x","question":"x","frame":%b}' % (b"9" * 60_000))]
    notes.append(await post(port, "/v1/chat/completions", b'{"model":"x","messages":[],"n":%b}' % (b"9" * 20_000_000)))
    notes.append(await post(port, "/upload_image", multipart(tiny_png(), frame="9" * 8_000), FORM))
    notes.append(await post(port, "/jobs", b'{"image_id":"x","question":"x","id":%b}' % (b"9" * 20_000_000)))
    return counted(notes)


async def escaped_text(port: int) -> str:
    """A text of five million escapes, four times: each character takes six bytes to parse."""
    text = b"\\u0041" * 5_000_000
    body = b'{"model":"medical-vqa","messages":[{"role":"user","content":"%b"}]}' % text
    return counted(await asyncio.gather(*(post(port, "/v1/chat/completions", body) for _ in range(4))))


async def many_words(port: int) -> str:
    """A text of ten million words, twice at a time."""
    body = b'{"model":"medical-vqa","messages":[{"role":"user","content":"%b"}]}' % (b"ab " * 10_000_000)
    return counted(
        await asyncio.gather(*(post(port, "/v1/chat/completions", body, source=f"127.0.0.{n}") for n in (2, 3)))
    )


async def wide_text(port: int) -> str:
    """Texts of 30 MB with one character that makes each take 120 MB, of four clients at once."""
    url = b"data:image/png;base64," + b"A" * 30_000_000 + "😀".encode()
    part = b'{"type":"image_url","image_url":{"url":"%b"}},{"type":"text","text":"Is it a CT?"}' % url
    body = b'{"model":"medical-vqa","messages":[{"role":"user","content":[%b]}]}' % part
    sources = [f"127.0.0.{n}" for n in (2, 3, 4, 5)]
    return counted(
        await asyncio.gather(*(post(port, "/v1/chat/completions", body, source=source) for source in sources))
    )


async def many_lines_of_base64(port: int) -> str:
    """Images in lines of two characters, and in percent-encoded ones, of two clients at once."""
    bodies = []
    for image in (b"AB " * 10_000_000, b"%41" * 10_000_000):
        part = (
            b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}},{"type":"text","text":"CT?"}' % image
        )
        bodies.append(b'{"model":"medical-vqa","messages":[{"role":"user","content":[%b]}]}' % part)
    posts = (post(port, "/v1/chat/completions", bodies[n % 2], source=f"127.0.0.{2 + n}") for n in range(4))
    return counted(await asyncio.gather(*posts))


async def many_messages(port: int) -> str:
    """As many messages and parts as are accepted, from ten connections for some seconds."""
    part = b'{"type":"text","text":"Is it a CT?"}'
    message = b'{"role":"user","content":[%b]}' % b",".join([part] * 60)
    body = b'{"model":"medical-vqa","messages":[%b]}' % b",".join([message] * 180)
    return await flood(port, 10, 8.0, lambda: post(port, "/v1/chat/completions", body))


async def many_parts(port: int) -> str:
    """A form of half a million small fields, and a form of as many files."""
    field = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    file = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n1\r\n'
    notes = [await post(port, path, field * 500_000, FORM) for path in ("/upload_image", "/ask", "/series")]
    return counted([*notes, await post(port, "/series", file * 400_000 + b"--b--\r\n", FORM)])


async def many_form_fields(port: int) -> str:
    form = "application/x-www-form-urlencoded"
    return await flood(port, 4, 5.0, lambda: post(port, "/ask_question", b"a=1&" * 16_000, form))


async def long_queries(port: int) -> str:
    """Query strings of 60 kB: of one long value, and of 20,000 parameters."""
    paths = ["/images/x/questions?language=" + "a" * 60_000, "/images/x/view?" + "a=1&" * 15_000]
    turns = iter(range(1_000_000))
    return await flood(port, 8, 8.0, lambda: get(port, paths[next(turns) % 2]))


async def many_headers(port: int) -> str:
    """As many and as long headers as are accepted, and then too many."""
    accepted = "".join(f"X-{n}: {'a' * 600}\r\n" for n in range(95))
    too_many = "".join(f"X-{n}: a\r\n" for n in range(5_000))
    turns = iter(range(1_000_000))
    return await flood(port, 8, 8.0, lambda: get(port, "/model", (accepted, too_many)[next(turns) % 2]))


async def slow_bodies(port: int) -> str:
    """300 bodies of a byte a second."""
    head = b"POST /upload_image HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="image_file"; filename="x"\r\n\r\n'
    return await trickle(port, 300, head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + part)


async def slow_headers(port: int) -> str:
    """1,000 headers of a byte a second."""
    return await trickle(port, 1000, b"GET /healthz HTTP/1.1\r\nX: ")


async def tiny_chunks(port: int) -> str:
    """Bodies in chunks of one byte."""
    head = b"POST /upload_image HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    chunks = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n-\r\n" * 4_000_000
    return counted(await asyncio.gather(*(raw(port, chunks) for _ in range(4))))


async def pipelined_requests(port: int) -> str:
    """100,000 requests on each of four connections, without waiting for a response."""
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    return counted(await asyncio.gather(*(raw(port, request * 100_000) for _ in range(4))))


async def idle_connections(port: int) -> str:
    """3,000 connections that send nothing, opened again when they are closed, for 15 seconds."""
    until = time.monotonic() + 15
    notes: list[str] = []

    async def hold(n: int) -> None:
        while time.monotonic() < until:
            try:
                reader, writer = await connect(port, f"127.0.0.{2 + n % 3}")
                async with asyncio.timeout(max(0.1, until - time.monotonic())):
                    notes.append((await reader.read(15)).decode()[9:12] or "closed")
            except TimeoutError:
                notes.append("held")
            except OSError:
                notes.append("reset")
                await asyncio.sleep(0.5)
                continue
            writer.transport.abort()
            await asyncio.sleep(0.5)

    await asyncio.gather(*(hold(n) for n in range(3000)))
    return counted(notes)


async def websockets(port: int) -> str:
    """Requests for a WebSocket, which no route has."""
    fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    return await flood(port, 8, 5.0, lambda: get(port, "/ask_question", fields))


async def compressed_bombs(port: int) -> str:
    """Small files whose parts inflate to a gigabyte, or have a hundred thousand frames."""
    bombs = (png_with_text_bomb(), png_of_side(30_000), gif_of_frames(100_000), gzip.compress(bytes(1 << 30), 1))
    turns = iter(range(1_000_000))
    polite: list[str] = []

    async def ask() -> None:
        for _ in range(15):
            polite.append(await post(port, "/ask", multipart(tiny_png(), question="Is it a CT?"), FORM, "127.0.0.9"))
            await asyncio.sleep(0.5)

    def attack() -> Awaitable[str]:
        return post(port, "/upload_image", multipart(bombs[next(turns) % 4]), FORM)

    note, _ = await asyncio.gather(flood(port, 4, 15.0, attack), ask())
    return f"{note}; polite {counted(polite)}"


async def archives(port: int) -> str:
    """Zip archives of 60,000 empty files, and of one that inflates to a gigabyte."""
    many, large = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for n in range(60_000):
            archive.writestr(str(n), b"")
    with zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.dcm", bytes(1 << 30))
    parts = [multipart(out.getvalue()).replace(b'"image_file"', b'"files"') for out in (many, large)]
    return counted(await asyncio.gather(*(post(port, "/series", part, FORM) for part in parts * 2)))


async def many_files(port: int) -> str:
    """Forms of a thousand files: of a few bytes, of spaces, and small pictures."""
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
    contents = (b"x" * 10, b" " * 4096, tiny_png())
    bodies = [(part + content + b"\r\n") * 1000 + b"--b--\r\n" for content in contents]
    turns = itertools.count()
    return await flood(port, 4, 10.0, lambda: post(port, "/series", bodies[next(turns) % 3], FORM))


async def dicom_headers(port: int) -> str:
    """Headers of DICOM files that nest without end, or hold values without end, or a character set of megabytes."""
    undefined = 0xFFFFFFFF
    item = struct.pack("<HHI", 0xFFFE, 0xE000, undefined)
    ends = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    nested = struct.pack("<HH2sHI", 0x27, 0x1010, b"UN", 0, undefined) + item
    endless = struct.pack("<HH2sHI", 0x27, 0x1011, b"OB", 0, undefined) + bytes(20)
    names = b"A\\" * 5_000_000
    headers = (
        nested * 8_000,
        nested * 100 + endless * 5_000 + ends * 100,
        nested + (item + endless) * 5_000,
        struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, undefined) + (item + ends[:8]) * 90_000 + ends[8:],
        struct.pack("<HH2sHI", 0x08, 0x05, b"UC", 0, len(names)) + names,
    )
    start = bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    start += struct.pack("<HH2sH", 8, 0x60, b"CS", 2) + b"CT"
    turns = itertools.count()
    polite: list[str] = []

    async def ask() -> None:
        for _ in range(20):
            polite.append(await post(port, "/ask", multipart(tiny_png(), question="Is it a CT?"), FORM, "127.0.0.9"))
            await asyncio.sleep(0.5)

    def attack() -> Awaitable[str]:
        return post(port, "/upload_image", multipart(start + headers[next(turns) % len(headers)]), FORM)

    note, _ = await asyncio.gather(flood(port, 4, 10.0, attack), ask())
    return f"{note}; polite {counted(polite)}"


async def many_uploads(port: int) -> str:
    """Different small pictures, eight at a time, for 15 seconds."""
    values = iter(range(1_000_000))

    def attack() -> Awaitable[str]:
        out = io.BytesIO()
        Image.fromarray(np.full((512, 512), next(values) % 256, np.uint8)).save(out, "PNG")
        return post(port, "/upload_image", multipart(out.getvalue()), FORM)

    return await flood(port, 8, 15.0, attack)


async def many_conversations(port: int) -> str:
    return await flood(port, 16, 10.0, lambda: post(port, "/conversations", b"", source="127.0.0.3"))


async def long_conversation(port: int) -> str:
    """A conversation with as many questions about four images as are accepted, then changed again and again."""

    async def send(method: str, path: str, body: bytes, kind: str = "application/json") -> dict[str, Any]:
        reader, writer = await connect(port)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        _, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return dict(json.loads(answer)) if answer else {}

    path = "/conversations/" + (await send("POST", "/conversations", b""))["id"]
    notes: list[str] = []
    for number in range(4):
        picture = multipart(tiny_png(100 + number))
        image = (await send("POST", f"{path}/images", picture, FORM))["image"]["image_id"]
        for n in range(300):
            question = {"image_id": image, "key": f"{number}-{n:08}", "question": "Is it a CT?"}
            notes.append(
                (await send("POST", f"{path}/questions", json.dumps(question).encode())).get("status", "refused")
            )
    draft = json.dumps({"image_id": image, "draft": "x"}).encode()
    until = time.monotonic() + 8
    while time.monotonic() < until:
        await asyncio.gather(*(send("PUT", f"{path}/draft", draft) for _ in range(4)))
    return counted(notes)


async def many_jobs(port: int) -> str:
    """30 jobs with as many questions as are accepted, and then their list, again and again."""
    lines = b"\n".join(b'{"image_id":"%b","question":"%b"}' % (b"a" * 47, b"q" * 400) for _ in range(49_000))
    notes = [await post(port, "/jobs", lines) for _ in range(30)]
    return f"{counted(notes)}; list {await flood(port, 4, 10.0, lambda: get(port, '/jobs'))}"


async def picture_flood(port: int) -> str:
    """Three times a thousand clients request a picture of some megabytes, from a store in a folder, at once."""
    image_id = await created(port, "/upload_image", multipart(noise_png()), "image_id")
    path = f"/images/{image_id}/picture"
    notes: list[str] = []
    for _ in range(3):
        notes += await asyncio.gather(*(get(port, path, source=f"127.0.0.{2 + n % 4}") for n in range(1000)))
    return counted(notes)


async def many_views(port: int) -> str:
    """300 clients request slices of a series, each in a window of its own, again and again."""
    values = np.random.default_rng(0).normal(0, 300, (256, 256, 200)).astype(np.int16)
    volume = nibabel.Nifti1Image(values, np.eye(4)).to_bytes()
    image_id = await created(port, "/series", multipart(volume, name="files"), "image_id")
    numbers = itertools.count()

    async def view() -> str:
        n = next(numbers)
        path = f"/images/{image_id}/view?plane=coronal&frame={n % 256}&window={n % 300},{300 + n % 100}"
        return await get(port, path, source=f"127.0.0.{2 + n % 4}")

    return await flood(port, 300, 10.0, view)


async def waiting_readers(port: int) -> str:
    """2,200 clients wait for a change of a conversation that never comes, again and again."""
    conversation = await created(port, "/conversations", b"", "id")
    numbers = itertools.count()

    async def read() -> str:
        return await get(port, f"/conversations/{conversation}?after=9", source=f"127.0.0.{2 + next(numbers) % 4}")

    return await flood(port, 2200, 15.0, read)


async def slow_readers(port: int) -> str:
    """200 clients request a picture of some megabytes and read none of it."""
    image_id = await created(port, "/upload_image", multipart(noise_png()), "image_id")
    request = f"GET /images/{image_id}/picture HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    connections = []
    for n in range(200):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.bind((f"127.0.0.{2 + n % 4}", 0))
        connection.connect(("127.0.0.1", port))
        connection.sendall(request)
        connections.append(connection)
    await asyncio.sleep(10)
    notes = []
    for connection in connections:
        connection.setblocking(False)
        try:
            notes.append(connection.recv(15).decode()[9:12] or "closed")
        except OSError:
            notes.append("nothing")
        connection.close()
    return counted(notes)


ATTACKS: tuple[Callable[[int], Awaitable[str]], ...] = (
    chat_parts, unknown_keys, more_unknown_keys, many_questions, nested_lists, endless_header, endless_part_header,
    half_bodies, long_content_length, large_pictures, largest_pictures, nested_objects, huge_numbers, escaped_text,
    many_words, wide_text, many_lines_of_base64, many_messages, many_parts, many_form_fields, long_queries,
    many_headers, slow_bodies, slow_headers, tiny_chunks, pipelined_requests, idle_connections, websockets,
    compressed_bombs, archives, many_files, dicom_headers, many_uploads, many_conversations, long_conversation,
    many_jobs, slow_readers,
    picture_flood, many_views, waiting_readers,
)  # fmt: skip
IN_FOLDER = {"picture_flood"}
"""Attacks on a server whose store is a folder."""


# --- their tools ------------------------------------------------------------------------------------------------------

FORM = "multipart/form-data; boundary=b"


async def connect(port: int, source: str = "127.0.0.2") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))


async def post(port: int, path: str, body: bytes, kind: str = "application/json", source: str = "127.0.0.2") -> str:
    """The status of a response, or what happened instead."""
    reader, writer = await connect(port, source)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.suppress(OSError):
        writer.write(head.encode() + body)
    try:
        async with asyncio.timeout(PATIENCE):
            status = (await reader.read(15)).decode()[9:12] or "closed"
    except TimeoutError:
        status = "no answer"
    except OSError:
        status = "reset"
    writer.transport.abort()
    return status


async def created(port: int, path: str, body: bytes, field: str) -> str:
    """A field of the response to a request that creates something."""
    reader, writer = await connect(port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    value = b""
    async with asyncio.timeout(PATIENCE):
        while value.count(b'"') < 2:
            received = await reader.readuntil(f'"{field}":'.encode())
            value = await reader.readuntil(b",") if received else b""
    writer.transport.abort()
    return value.split(b'"')[1].decode()


async def get(port: int, path: str, fields: str = "", source: str = "127.0.0.2") -> str:
    return await raw(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode(), source)


async def raw(port: int, request: bytes, source: str = "127.0.0.2") -> str:
    """The status of the first response to some bytes, or what happened instead."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await connect(port, source)
            try:
                with contextlib.suppress(OSError):
                    writer.write(request)
                    status = (await reader.read(15)).decode()[9:12]
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            await writer.drain()  # the rest, as far as the server reads it
                    return status or "closed"
                return "reset"
            finally:
                writer.transport.abort()
    except TimeoutError:
        return "no answer"
    except OSError:
        return "reset"


async def flood(port: int, clients: int, seconds: float, attack: Callable[[], Awaitable[str]]) -> str:  # noqa: ARG001
    """Some clients that attack again and again."""
    until = time.monotonic() + seconds
    notes: list[str] = []

    async def client() -> None:
        while time.monotonic() < until:
            notes.append(await attack())

    await asyncio.gather(*(client() for _ in range(clients)))
    return counted(notes)


async def trickle(port: int, connections: int, head: bytes, seconds: float = 25.0) -> str:
    """Connections that send a byte each second, until the server answers."""

    async def client(n: int) -> str:
        try:
            reader, writer = await connect(port, f"127.0.0.{2 + n % 4}")
            writer.write(head)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        return (await reader.read(15)).decode()[9:12] or "closed"
                writer.write(b"a")
            return "held"
        except OSError:
            return "reset"

    return counted(await asyncio.gather(*(client(n) for n in range(connections))))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with_text_bomb() -> bytes:
    """A PNG with twenty compressed texts of 50 MB each."""
    data = tiny_png()
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000), 9))
    return data[:33] + text * 20 + data[33:]


def png_of_side(side: int) -> bytes:
    """A PNG of one bit a pixel, all of them equal."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + packer.flush()
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def gif_of_frames(frames: int) -> bytes:
    """A GIF of many frames of 64 by 64 pixels, each a copy of the second."""
    out = io.BytesIO()
    pictures = [Image.fromarray(np.full((64, 64), gray, np.uint8)) for gray in (0, 255)]
    pictures[0].save(out, "GIF", save_all=True, append_images=pictures[1:])
    data = out.getvalue()
    start = data.index(b"\x21\xf9", data.index(b"\x2c"))
    return data[:start] + data[start:-1] * frames + b";"


def multipart(data: bytes, *, name: str = "image_file", **fields: str) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'.encode()
    return b"".join(parts) + head + data + b"\r\n--b--\r\n"


def noise_png(side: int = 1500) -> bytes:
    """A PNG that cannot be compressed."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def tiny_png(gray: int = 100) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((64, 64), gray, np.uint8)).save(out, "PNG")
    return out.getvalue()


def counted(notes: list[str]) -> str:
    return ", ".join(f"{count}x {note}" for note, count in sorted(Counter(notes).items()))


# --- the server and the probe -----------------------------------------------------------------------------------------


def probe(port: int) -> None:
    """Ask for /healthz every 20 ms until standard input closes; print how long it took, and the failures."""
    import select  # noqa: PLC0415

    seconds: list[float] = []
    failures = 0
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        start = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as connection:
                connection.settimeout(60)
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                failures += not connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            failures += 1
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.percentile(seconds, (50, 99))
    found = {
        "healthz_median_ms": round(1000 * float(p50), 1),
        "healthz_p99_ms": round(1000 * float(p99), 1),
        "healthz_slowest_ms": round(1000 * max(seconds)),
        "healthz_failures": failures,
        "probes": len(seconds),
    }
    print(json.dumps(found))


class Memory:
    """The memory of the server and its decoders: a control group where this process may make one, else sampled."""

    def __init__(self, limit_mib: int) -> None:
        self.group: Path | None = None
        if CONTROLLER.is_dir() and os.access(CONTROLLER, os.W_OK):
            self.group = CONTROLLER / f"serve-attacks-{os.getpid()}"
            self.group.mkdir(exist_ok=True)
            if limit_mib:
                (self.group / "memory.limit_in_bytes").write_text(str(limit_mib * MEBIBYTE))
        self.pid = 0
        self.peak_resident = 0

    def watch(self, stop: threading.Event) -> None:
        """Sample what is resident, for the group's peak counts the system's cache of written files too."""
        while not stop.wait(0.05):
            self.peak_resident = max(self.peak_resident, self.anonymous())

    def anonymous(self) -> int:
        """Bytes of the group apart from the system's cache of files; without a group, of the processes."""
        if self.group is None:
            return self.resident_mib() * MEBIBYTE
        lines = (self.group / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("total_rss "))

    def enter(self) -> None:
        """In the server's process, before it starts."""
        if self.group is not None:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))

    def peak_mib(self) -> int | None:
        return int((self.group / "memory.max_usage_in_bytes").read_text()) // MEBIBYTE if self.group else None

    def resident_mib(self) -> int:
        try:
            processes = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
            return sum(process.memory_info().rss for process in processes) // MEBIBYTE
        except psutil.NoSuchProcess:
            return 0

    def killed(self) -> int:
        """How many processes the kernel ended for want of memory."""
        text = (self.group / "memory.oom_control").read_text() if self.group else ""
        return int(next((line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")), "0"))

    def remove(self) -> None:
        if self.group is not None:
            with contextlib.suppress(OSError):
                self.group.rmdir()


@contextlib.contextmanager
def server(memory: Memory, limit_mib: int, *, in_folder: bool = False) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    jobs = tempfile.TemporaryDirectory()
    environ = {**os.environ, "PORT": str(port), "MEDICAL_VQA_JOBS": jobs.name}
    if in_folder:
        environ["MEDICAL_VQA_STORE"] = f"{jobs.name}/store"
    if limit_mib:  # as a container would report it
        environ["MEDICAL_VQA_MEMORY_BYTES"] = str(limit_mib * MEBIBYTE)
    process = subprocess.Popen(
        [sys.executable, "-m", "medical_vqa", "serve"],
        env=environ,
        stderr=subprocess.DEVNULL,
        preexec_fn=memory.enter,  # noqa: PLW1509 - no thread runs yet
    )
    memory.pid = process.pid
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        asyncio.run(post(port, "/ask", multipart(tiny_png(), question="Is it a CT?"), FORM))  # the decoder has started
        yield port, process
    finally:
        process.kill()
        process.wait()
        time.sleep(0.5)
        memory.remove()
        jobs.cleanup()


def measure(attack: Callable[[int], Awaitable[str]], limit_mib: int) -> dict[str, Any]:
    memory = Memory(limit_mib)
    with server(memory, limit_mib, in_folder=attack.__name__ in IN_FOLDER) as (port, process):
        before = memory.resident_mib()
        stop = threading.Event()
        watcher = threading.Thread(target=memory.watch, args=(stop,))
        watcher.start()
        command = [sys.executable, __file__, "--probe", str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as prober:
            time.sleep(0.5)
            start = time.monotonic()
            try:
                note = asyncio.run(attack(port))
            except OSError as error:
                note = f"connection lost ({type(error).__name__})"
            seconds = time.monotonic() - start
            time.sleep(LATE)
            out, _ = prober.communicate(b"x")
        stop.set()
        watcher.join()
        return {
            "attack": attack.__name__,
            "received": note,
            "seconds": round(seconds, 1),
            **json.loads(out),
            "rest_mib": before,
            "peak_mib": memory.peak_mib(),
            "peak_without_file_cache_mib": memory.peak_resident // MEBIBYTE,
            "mib_after_5_s": memory.resident_mib(),
            "killed_for_memory": memory.killed(),
            "alive": process.poll() is None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-mib", type=int, default=1024, help="0: no limit")
    parser.add_argument("--only", action="append", choices=[attack.__name__ for attack in ATTACKS])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        probe(arguments.probe)
        return
    rows = []
    for attack in ATTACKS:
        if not arguments.only or attack.__name__ in arguments.only:
            rows.append(measure(attack, arguments.limit_mib))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "limit_mib": arguments.limit_mib,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "attacks": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
