"""Sends CoAP requests with aiocoap.

The argument is a JSON array of [type, method, URI, content format or null, payload]; standard output has the code that
each was answered with, a line each, in the same order. They all go at once, and each from an endpoint of its own:
an endpoint of aiocoap waits for one answer before it asks the same peer for the next (NSTART, RFC 7252, 4.7).
"""

import asyncio
import json
import sys

import aiocoap


async def ask(kind, method, uri, content_format, payload):
    tuning = {"CON": aiocoap.Reliable, "NON": aiocoap.Unreliable}[kind]
    message = aiocoap.Message(
        code=aiocoap.Code[method], uri=uri, payload=payload.encode(), transport_tuning=tuning
    )
    if content_format is not None:
        message.opt.content_format = content_format
    context = await aiocoap.Context.create_client_context()
    try:
        return (await context.request(message, handle_blockwise=False).response).code.dotted
    finally:
        await context.shutdown()


async def main():
    requests = json.loads(sys.argv[1])
    for code in await asyncio.gather(*(ask(*request) for request in requests)):
        print(code)


asyncio.run(main())
