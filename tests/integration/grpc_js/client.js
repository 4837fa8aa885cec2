// A backend in another language: asks a broker for the tokens of two tenants with grpc-js, from the
// .proto files alone, and prints as JSON what it was told.
//
//   node client.js ADDRESS TENANT UNKNOWN_TENANT INCLUDE_DIR...

"use strict";

const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const [address, tenant, unknownTenant, ...includeDirs] = process.argv.slice(2);

const definition = protoLoader.loadSync(
  ["broker/v1/token_service.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  { includeDirs, keepCase: true, longs: String, enums: String },
);

const { TokenService } = grpc.loadPackageDefinition(definition).broker.v1;

function decoded(typeName, bytes) {
  return definition[typeName].deserialize(bytes);
}

function detailsOf(error) {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const status = decoded("google.rpc.Status", bytes);
  return status.details.map((detail) => ({
    type: detail.type_url,
    value: decoded(detail.type_url.split("/").pop(), detail.value),
  }));
}

function ask(client, asked) {
  return new Promise((resolve) => {
    const deadline = Date.now() + 20000;
    client.GetAccessToken({ tenant: asked }, { deadline }, (error, response) => {
      if (error) {
        resolve({ code: error.code, message: error.details, details: detailsOf(error) });
      } else {
        resolve(response);
      }
    });
  });
}

async function main() {
  const client = new TokenService(address, grpc.credentials.createInsecure());
  const told = { known: await ask(client, tenant), unknown: await ask(client, unknownTenant) };
  process.stdout.write(JSON.stringify(told));
  client.close();
}

main();
