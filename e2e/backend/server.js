// The article's application: tells which server received what. Run as `node server.js ADDRESS [PORT]`.
const address = process.argv[2] || '127.0.0.1';
const port = Number(process.argv[3] || 8010);
const { WebSocketServer } = require('ws');

const wss = new WebSocketServer({ host: address, port }, () => {
  console.log('Server started at ' + port);
});
wss.on('connection', (ws, request) => {
  const frames = /^\/frames\/(\d+)$/.exec(request.url);
  ws.on('error', (error) => console.error('connection: %s', error.message));
  ws.on('message', (message, isBinary) => {
    // A binary message is echoed as it came: tests compare payloads byte for byte.
    if (isBinary && frames) {
      sendInFrames(ws, message, Number(frames[1]));
      return;
    }
    if (isBinary) {
      ws.send(message, { binary: true });
      return;
    }
    ws.send('Server ' + address + '  received from client: ' + message);
  });
});
process.on('SIGTERM', () => process.exit(0));

// For clients of /frames/N: frames of at most N bytes, with a ping between the first two.
function sendInFrames(ws, message, size) {
  let at = 0;
  do {
    const end = Math.min(at + size, message.length);
    const fin = end === message.length;
    ws.send(message.subarray(at, end), { binary: true, fin });
    if (at === 0 && !fin) ws.ping('between');
    at = end;
  } while (at < message.length);
}
