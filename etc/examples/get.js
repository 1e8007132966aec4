// One forecast from Node: MessagePack-RPC is three lines on top of @msgpack/msgpack (npm install @msgpack/msgpack).
//
//   node get.js BTC/USDT
const net = require("node:net");
const { encode, decodeMultiStream } = require("@msgpack/msgpack");

async function main(symbol) {
  const socket = net.connect(process.env.CRYPTOD_SOCKET || "/run/cryptod/cryptod.sock");
  socket.write(encode([0, 1, "get", [symbol]])); // [request, id, command, parameters]
  for await (const [kind, id, error, forecast] of decodeMultiStream(socket)) {
    if (kind !== 1 || id !== 1) continue; // a notification, or the answer to something else
    socket.end();
    if (error) throw new Error(`${error.message} (${error.hint})`);
    return forecast;
  }
}

main(process.argv[2] || "BTC/USDT").then(
  (forecast) => console.log(JSON.stringify(forecast)),
  (error) => {
    console.error(error.message);
    process.exitCode = 1;
  },
);
