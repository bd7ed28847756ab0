import assert from "node:assert/strict";
import { test } from "node:test";

import { parseJson } from "../src/json.js";

const CASES = /** @type {[string, unknown][]} */ ([
  ["9007199254740991", 9007199254740991],
  ["9007199254740993", 9007199254740993n],
  ["-9223372036854775808", -9223372036854775808n],
  ["18446744073709551615", 18446744073709551615n],
  ["1234567890123456789.5", 1234567890123456789.5],
  ["0.12345678901234567890", 0.1234567890123456789],
  ["1e20", 1e20],
  ["12345678901234567e3", 12345678901234567e3],
  ['"9007199254740993"', "9007199254740993"],
  ['"a \\" 9007199254740993"', 'a " 9007199254740993'],
  ['"\\\\"', "\\"],
]);

for (const [text, value] of CASES) {
  test(`${text} is decoded exactly`, () => {
    assert.deepEqual(parseJson(text), value);
    assert.deepEqual(parseJson(`{"a":[${text},{"b":${text}}]}`), { a: [value, { b: value }] });
  });
}

test("what is not JSON is refused", () => {
  for (const text of ["", "{", "[12345678901234567890", "{12345678901234567890:1}"]) {
    assert.throws(() => parseJson(text), SyntaxError);
  }
});
