"""llama-server under a load (load.py): token ids in, a stream of tokens out, each request a connection of its own."""
import asyncio
import json
import time

import programs
from measure import NotMeasured

READY_S = 60
REQUEST_S = 300


def run(arrivals, threads, slots, context):
    """Tokens per second of all requests and the 99th percentile between two tokens of one, in ms. A server of its own."""
    port = programs.free_port()
    command = [programs.PEERS / "llama-server", "-m", programs.MODEL, "-t", threads, "-tb", threads, "-np", slots, "-c", slots * context,
               "--host", "127.0.0.1", "--port", port, "--no-cache-prompt", "--no-webui", "-fa", "auto"]
    with programs.background(command, port):
        wait_ready(port)
        return asyncio.run(drive(arrivals, port))


def wait_ready(port):
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if b" 200 " in asyncio.run(answer(port, b"GET /health HTTP/1.0\r\n\r\n")).split(b"\r\n")[0]:
            return
        time.sleep(0.1)
    raise NotMeasured("llama-server does not become ready")


async def answer(port, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.read()
    writer.close()
    return head


async def drive(arrivals, port):
    start = time.monotonic()
    try:
        times = await asyncio.wait_for(asyncio.gather(*(one(arrival, port, start) for arrival in arrivals)), REQUEST_S)
    except (OSError, asyncio.TimeoutError) as error:
        raise NotMeasured(f"llama-server: {error!r}") from error
    for arrival, tokens in zip(arrivals, times):
        if len(tokens) != arrival.output_tokens:
            raise NotMeasured(f"llama-server: {len(tokens)} tokens, not {arrival.output_tokens}")
    gaps = sorted(1e3 * (b - a) for tokens in times for a, b in zip(tokens, tokens[1:]))
    return {"tokens": sum(map(len, times)) / (max(tokens[-1] for tokens in times) - start),
            "p99_ms": gaps[min(len(gaps) - 1, len(gaps) * 99 // 100)]}


async def one(arrival, port, start):
    """When each token came; those that come together count as together."""
    await asyncio.sleep(start + arrival.at_s - time.monotonic())
    body = json.dumps({"prompt": arrival.prompt, "n_predict": arrival.output_tokens, "ignore_eos": True, "stream": True,
                       "cache_prompt": False, "return_tokens": True, "temperature": 0}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    times = []
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            times += [time.monotonic()] * len(json.loads(line[6:]).get("tokens", []))
    writer.close()
    return times
