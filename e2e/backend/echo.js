// A server that echoes every message as it came (`node echo.js serve ADDRESS PORT`). A text message may also ask for
// something: `who` for the addresses of server and client, `close CODE REASON` for a Close, `ping TEXT` for a Ping
// whose Pong it reports, `last` for the code and reason of the last Close that a client sent.
// As `node echo.js try URL` it is a client that tries all of that and prints a line for each.
const { WebSocket, WebSocketServer } = require('ws');

const MIB = 1024 * 1024;

function serve(address, port) {
  let last = '';
  const handleProtocols = (offered) => (offered.has('chat') ? 'chat' : false);
  const options = { host: address, port, perMessageDeflate: true, maxPayload: 64 * MIB, handleProtocols };
  const server = new WebSocketServer(options, () => console.log('Server started at ' + port));
  server.on('connection', (ws, request) => {
    // Connections break, and some clients mean them to.
    ws.on('error', () => {});
    ws.on('pong', (payload) => { if (payload.length > 0) ws.send('pong ' + payload); });
    ws.on('close', (code, reason) => { last = code + ' ' + reason; });
    ws.on('message', (message, isBinary) => {
      const [word, first, rest] = isBinary ? [] : split(message.toString());
      if (word === 'who') ws.send(address + ' ' + request.socket.remoteAddress);
      else if (word === 'close') ws.close(Number(first), rest);
      else if (word === 'ping') ws.ping(first);
      else if (word === 'last') ws.send(last);
      else ws.send(message, { binary: isBinary });
    });
  });
}

function split(text) {
  if (text.length > 200) return [];
  const [word, first = '', ...rest] = text.split(' ');
  return [word, first, rest.join(' ')];
}

async function attempt(url) {
  const opened = (options = {}) => new Promise((resolve, reject) => {
    const ws = new WebSocket(url, ['other', 'chat'], { perMessageDeflate: false, maxPayload: 64 * MIB, ...options });
    ws.on('open', () => resolve(ws));
    ws.on('error', reject);
  });
  const next = (ws, event = 'message') => new Promise((resolve, reject) => {
    ws.once(event, (...values) => resolve(values));
    ws.once('error', reject);
    if (event !== 'close') ws.once('close', (code) => reject(new Error(event + ': closed with ' + code)));
  });
  const echoed = async (ws, message, options) => {
    const answer = next(ws);
    ws.send(message, options);
    const [back, isBinary] = await answer;
    const same = Buffer.compare(Buffer.from(back), Buffer.from(message)) === 0;
    return same && isBinary === (typeof message !== 'string') ? 'same' : 'different';
  };

  let ws = await opened();
  console.log('subprotocol: ' + ws.protocol);
  console.log('text: ' + await echoed(ws, 'Grüße, 世界 🎉'));
  console.log('empty: ' + await echoed(ws, ''));
  console.log('binary: ' + await echoed(ws, Buffer.from([...Array(256).keys()])));
  const large = Buffer.alloc(MIB, 'a large message, ');
  console.log('large: ' + await echoed(ws, large));

  let answer = next(ws);
  ws.send('in ', { fin: false });
  ws.send('three ', { fin: false });
  ws.send('parts', { fin: true });
  console.log('fragmented: ' + (await answer)[0]);

  answer = next(ws, 'pong');
  ws.ping('mine');
  console.log('ping: ' + (await answer)[0]);
  answer = next(ws);
  ws.send('ping yours');
  console.log('pinged: ' + (await answer)[0]);

  let ended = next(ws, 'close');
  ws.close(4001, 'my reason');
  console.log('closing: ' + (await ended)[0]);
  ws = await opened();
  let last;
  do {
    answer = next(ws);
    ws.send('last');
    last = String((await answer)[0]);
  } while (!last.startsWith('4001'));
  console.log('closed with: ' + last);
  ended = next(ws, 'close');
  ws.send('close 4002 their reason');
  console.log('closed by: ' + (await ended).join(' '));

  ws = await opened({ perMessageDeflate: { threshold: 0 } });
  console.log('extensions: ' + ws.extensions);
  console.log('compressed: ' + await echoed(ws, 'again and '.repeat(20000)));
  ended = next(ws, 'close');
  ws.close(1000);
  console.log('closing: ' + (await ended)[0]);
}

const [mode, first, second] = process.argv.slice(2);
if (mode === 'serve') {
  serve(first, Number(second));
} else {
  attempt(first).catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
}
process.on('SIGTERM', () => process.exit(0));
