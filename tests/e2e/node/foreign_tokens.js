// An identity provider with `jose`. Arguments: the shape of its tokens, and its name.
// Prints its key set, and then one token per line: good, for another audience, expired.

const jose = require("jose");

const [shape, issuer] = process.argv.slice(2);
const shapes = {
  // A list of audiences, and an RSA key that names its algorithm.
  auth0: {
    algorithm: "RS256",
    key: { use: "sig", alg: "RS256", x5t: "qU3v7fZ0dL2pZ5l5mIuTnZ0Nn2k" },
    audience: ["game-api", "https://tenant.auth0.example/userinfo"],
    claims: { azp: "client", scope: "openid", gty: "password" },
    subject: "auth0|65f0c0ffee",
  },
  // A key without an algorithm, a version of its own, times without a fraction.
  entra: {
    algorithm: "RS256",
    key: { use: "sig", x5c: ["MIIC/zCCAeegAwIBAgIJAQ=="] },
    audience: "game-api",
    claims: { ver: "2.0", tid: "9122040d-6c67-4c5b-b112-36a304b66dad", aio: "E2ZgY" },
    subject: "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
  },
  // A second key in the set, for encryption.
  keycloak: {
    algorithm: "ES256",
    key: { use: "sig", alg: "ES256" },
    audience: ["game-api", "account"],
    claims: { typ: "Bearer", session_state: "s", realm_access: { roles: ["player"] } },
    subject: "f:6e3b:ann",
  },
};

async function main() {
  const { algorithm, key, audience, claims, subject } = shapes[shape];
  const pair = await jose.generateKeyPair(algorithm);
  const other = await jose.generateKeyPair("RSA-OAEP");
  const keys = [
    { ...(await jose.exportJWK(other.publicKey)), kid: "enc", use: "enc", alg: "RSA-OAEP" },
    { ...(await jose.exportJWK(pair.publicKey)), kid: "sig", ...key },
  ];
  console.log(JSON.stringify({ keys }));

  const sign = (audience, age) => {
    const now = Math.floor(Date.now() / 1000) - age;
    const permissions = ["notification:player:self:*"];
    return new jose.SignJWT({ ...claims, permissions })
      .setProtectedHeader({ alg: algorithm, kid: "sig", typ: "JWT" })
      .setIssuer(issuer)
      .setAudience(audience)
      .setSubject(subject)
      .setIssuedAt(now)
      .setExpirationTime(now + 3600)
      .sign(pair.privateKey);
  };
  console.log(JSON.stringify(await sign(audience, 0)));
  console.log(JSON.stringify(await sign("other-api", 0)));
  console.log(JSON.stringify(await sign(audience, 7200)));
}

main();
