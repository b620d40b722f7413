// What the Autobahn test suite tries: the module `ws` as a server that echoes (`node autobahn.js serve ADDRESS
// PORT`), or as a client that runs all cases of its server (`node autobahn.js try AGENT URL`).
const { WebSocket, WebSocketServer } = require('ws');

// The largest message of the suite has 16 MiB.
const options = { perMessageDeflate: true, maxPayload: 64 * 1024 * 1024 };

function echo(ws) {
  // Most cases break the connection on purpose.
  ws.on('error', () => {});
  ws.on('message', (message, isBinary) => ws.send(message, { binary: isBinary }));
}

function serve(host, port) {
  new WebSocketServer({ host, port, ...options }, () => console.log('Server started at ' + port)).on('connection', echo);
}

function ended(ws) {
  return new Promise((resolve) => ws.on('close', resolve));
}

function asked(ws) {
  ws.on('error', (error) => console.error('%s: %s', ws.url, error.message));
  return ended(ws);
}

async function run(agent, url) {
  let count = 0;
  const counter = new WebSocket(url + '/getCaseCount', options);
  counter.on('message', (message) => { count = Number(message); });
  await asked(counter);
  if (count === 0) throw new Error('no cases at ' + url);
  for (let number = 1; number <= count; number += 1) {
    const ws = new WebSocket(`${url}/runCase?case=${number}&agent=${agent}`, options);
    echo(ws);
    await ended(ws);
  }
  await asked(new WebSocket(`${url}/updateReports?agent=${agent}`, options));
  console.log('ran ' + count + ' cases');
}

const [mode, first, second] = process.argv.slice(2);
if (mode === 'serve') {
  serve(first, Number(second));
} else {
  run(first, second).catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
}
process.on('SIGTERM', () => process.exit(0));
