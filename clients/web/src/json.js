/**
 * JSON with integers of 64 bits, for the option `parse` of a client.
 *
 * `JSON.parse` rounds integers beyond 2^53, and the `data` of a notification may have
 * integers from -2^63 to 2^64 - 1.
 *
 * @module
 */

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
/** Unpredictable, because the text is written by other people. */
const KEY = `bigint:${Math.random()}`;

/**
 * Decode JSON; integers that a number cannot represent become a `BigInt`.
 *
 * @param {string} text
 * @returns {any}
 */
export function parseJson(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  const marked = text.replace(TOKEN, (token) => {
    const isLong = /^-?\d{16,}$/.test(token) && !Number.isSafeInteger(Number(token));
    return isLong ? `{"${KEY}":"${token}"}` : token;
  });
  return JSON.parse(marked, (_, value) =>
    typeof value?.[KEY] === "string" ? BigInt(value[KEY]) : value,
  );
}
