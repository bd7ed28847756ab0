// Reads an AsyncAPI document from standard input, and prints what is wrong with it: a
// list of [severity, code, message, path]. Severity 0 is an error, 1 a warning.

import { readFileSync } from 'node:fs';

import { Parser } from '@asyncapi/parser';

const { diagnostics } = await new Parser().parse(readFileSync(0, 'utf8'));
const found = diagnostics.map((it) => [it.severity, it.code, it.message, it.path.join('/')]);
console.log(JSON.stringify(found));
