# What e2e/backend/echo.js is, with Python's module `websockets`: the same server and the same client.
import asyncio
import signal
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MIB = 1024 * 1024


async def run(address, port):
    last = ''

    async def session(ws):
        nonlocal last
        try:
            async for message in ws:
                is_short = isinstance(message, str) and len(message) <= 200
                word, first, rest = ((message if is_short else '').split(' ', 2) + ['', ''])[:3]
                if word == 'who':
                    await ws.send(f'{address} {ws.remote_address[0]}')
                elif word == 'close':
                    await ws.close(int(first), rest)
                elif word == 'ping':
                    await (await ws.ping(first))
                    await ws.send('pong ' + first)
                elif word == 'last':
                    await ws.send(last)
                else:
                    await ws.send(message)
        except ConnectionClosed:
            pass
        finally:
            last = f'{ws.close_code} {ws.close_reason}'

    async with serve(session, address, port, subprotocols=['chat'], max_size=64 * MIB) as server:
        print(f'Server started at {port}', flush=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        await server.wait_closed()


async def attempt(url):
    def opened(compression=None):
        return connect(url, subprotocols=['other', 'chat'], compression=compression, max_size=64 * MIB)

    async def echoed(ws, message):
        await ws.send(message)
        return 'same' if await ws.recv() == message else 'different'

    ws = await opened()
    print('subprotocol:', ws.subprotocol)
    print('text:', await echoed(ws, 'Grüße, 世界 🎉'))
    print('empty:', await echoed(ws, ''))
    print('binary:', await echoed(ws, bytes(range(256))))
    print('large:', await echoed(ws, (b'a large message, ' * MIB)[:MIB]))
    await ws.send(['in ', 'three ', 'parts'])
    print('fragmented:', await ws.recv())
    await (await ws.ping('mine'))
    print('ping: mine')
    await ws.send('ping yours')
    print('pinged:', await ws.recv())
    await ws.close(4001, 'my reason')
    print('closing:', ws.close_code)
    ws = await opened()
    last = ''
    while not last.startswith('4001'):
        await ws.send('last')
        last = await ws.recv()
    print('closed with:', last)
    await ws.send('close 4002 their reason')
    await ws.wait_closed()
    print('closed by:', ws.close_code, ws.close_reason)
    ws = await opened('deflate')
    print('extensions:', ', '.join(extension.name for extension in ws.protocol.extensions))
    print('compressed:', await echoed(ws, 'again and ' * 20000))
    await ws.close(1000)
    print('closing:', ws.close_code)


mode, first, *rest = sys.argv[1:]
asyncio.run(run(first, int(rest[0])) if mode == 'serve' else attempt(first))
