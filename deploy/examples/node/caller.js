// A backend that calls Pleo's API for one tenant, with tokens that it gets from the broker.
//
//   node caller.js BROKER TENANT API_URL [CALLS]
//
// BROKER_CA_FILE, BROKER_CLIENT_CERT_FILE and BROKER_CLIENT_KEY_FILE: to a broker with mutual TLS.
// Exit status 0: Pleo answered each call; 1: something else failed; 3: the customer must reconnect.
// A copy of protos/released.binpb is all that it needs of the broker.

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

const DEADLINE_MS = 10_000; // a refresh at Pleo takes up to ten seconds; REFRESH_IN_PROGRESS comes before
const RECONNECT = 3;

const released = path.join(__dirname, "../../../protos/released.binpb");
const definition = protoLoader.loadFileDescriptorSetFromBuffer(fs.readFileSync(released), {
  keepCase: true,
  longs: Number,
});
const { TokenService } = grpc.loadPackageDefinition(definition).broker.v1;

// Of google/rpc/error_details.proto, which no proto of the broker imports.
const ErrorInfo = protobuf
  .parse(
    `syntax = "proto3"; package google.rpc;
     message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }`,
  )
  .root.lookupType("google.rpc.ErrorInfo");

// The broker says in `grpc-retry-pushback-ms` when to try again, or never: gRPC obeys it by itself,
// and the backoffs here only stand in where a connection broke and nobody said anything.
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "broker.v1.TokenService" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "CANCELLED"],
      },
    },
  ],
};

class ReauthRequired extends Error {
  constructor(metadata) {
    super(`reconnect ${metadata.tenant}: ${metadata.cause}, since ${metadata.since}`);
  }
}

// One tenant's token, kept for as long as the broker promises.
class Tokens {
  constructor(client, tenant) {
    this.client = client;
    this.tenant = tenant;
    this.kept = null;
    this.reuseUntil = 0; // of the monotonic clock
  }

  async get(rejectedGeneration) {
    if (rejectedGeneration === undefined && performance.now() < this.reuseUntil) {
      return this.kept;
    }
    // Counted from before the call, so that the way back is not taken for lease.
    const asked = performance.now();
    this.kept = await this.ask(rejectedGeneration);
    const { seconds, nanos } = this.kept.reuse_for;
    this.reuseUntil = asked + seconds * 1000 + nanos / 1e6; // `degraded`: zero, so no reuse
    return this.kept;
  }

  ask(rejectedGeneration) {
    const request = { tenant: this.tenant };
    if (rejectedGeneration !== undefined) {
      request.rejected_generation = rejectedGeneration;
    }
    const options = { deadline: Date.now() + DEADLINE_MS };
    return new Promise((resolve, reject) => {
      this.client.GetAccessToken(request, options, (error, answer) =>
        error ? reject(explained(error)) : resolve(answer),
      );
    });
  }
}

// By the reason, not by the code or the text: several reasons share a code.
function explained(error) {
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (packed === undefined) {
    return error; // of gRPC itself: a deadline, no connection
  }
  const detail = definition["google.rpc.Status"]
    .deserialize(packed)
    .details.find((each) => each.type_url.endsWith("/google.rpc.ErrorInfo"));
  const info = ErrorInfo.decode(detail.value);
  return info.reason === "REAUTH_REQUIRED" ? new ReauthRequired(info.metadata) : error;
}

// Pleo's answer. A 401 is reported once, and the call is made again once if that brought another
// token. The same one back means that the token lives: then the 401 is Pleo's answer. A 403 is about
// scopes, and no newer token helps.
async function call(tokens, url) {
  const token = await tokens.get();
  const answer = await fetched(url, token);
  if (answer.status !== 401) {
    return answer;
  }
  const newer = await tokens.get(token.generation);
  return newer.generation > token.generation ? fetched(url, newer) : answer;
}

function fetched(url, token) {
  const headers = { Authorization: `${token.token_type} ${token.access_token}` };
  return fetch(url, { headers, signal: AbortSignal.timeout(DEADLINE_MS) });
}

// Mutual TLS where the broker's authority is named, and otherwise for loopback only.
function transport({ BROKER_CA_FILE, BROKER_CLIENT_KEY_FILE, BROKER_CLIENT_CERT_FILE }) {
  if (!BROKER_CA_FILE) {
    return grpc.credentials.createInsecure();
  }
  const files = [BROKER_CA_FILE, BROKER_CLIENT_KEY_FILE, BROKER_CLIENT_CERT_FILE];
  return grpc.credentials.createSsl(...files.map((each) => fs.readFileSync(each)));
}

async function main([address, tenant, apiUrl, calls = "1"]) {
  const client = new TokenService(address, transport(process.env), {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  });
  const tokens = new Tokens(client, tenant);
  try {
    for (let left = Number(calls); left > 0; left -= 1) {
      const { status } = await call(tokens, `${apiUrl}/v1/export-items`);
      console.log(`${status} with generation ${tokens.kept.generation}`);
      if (status !== 200) {
        return 1;
      }
    }
    return 0;
  } catch (error) {
    console.error(error.message);
    return error instanceof ReauthRequired ? RECONNECT : 1;
  } finally {
    client.close();
  }
}

main(process.argv.slice(2)).then((status) => {
  process.exitCode = status;
});
