// Reads OTLP/JSON log requests (one a line) with OpenTelemetry's own message definitions, packs each
// as protobuf, unpacks it and compares: a name, type or value the protocol does not have is lost on
// the way and seen. usage: check_otlp.cjs MODULES_DIR < requests.jsonl
'use strict';
const assert = require('node:assert');
const path = require('node:path');
const { readFileSync } = require('node:fs');

const root = require(path.join(process.argv[2], '@opentelemetry/otlp-transformer/build/src/generated/root.js'));
const Request = root.opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest;
let records = 0;
for (const line of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
	const given = JSON.parse(line);
	const packed = Request.encode(Request.fromObject(given)).finish();
	const read = Request.toObject(Request.decode(packed), { longs: String, bytes: String, enums: Number });
	assert.deepStrictEqual(JSON.parse(JSON.stringify(read)), given);
	for (const r of given.resourceLogs) for (const s of r.scopeLogs) records += s.logRecords.length;
}
assert.ok(records > 0, 'no record was read');
console.log(records + ' log records came through unchanged');
